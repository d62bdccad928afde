"""``triavatar study conditioning``: what the parts of the base model are worth on strangers.

One model for each variant and seed, all with the same data and the same number of steps, measured
on validation people. A variant says what it changes of the reference, so that a row tells of one
thing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from diffusion.conditioning.feature_set import FeatureSet
from diffusion.data.subjects import SubjectsConfig, paired_subjects
from diffusion.sampling.solvers import SamplerConfig
from diffusion.training.train_base import BaseModelConfig, TrainBaseConfig, train_base
from diffusion.training.train_upsampler import train_upsampler
from diffusion.training.validation import (
    HeldOutViews,
    PlaneComparison,
    ValidationConfig,
    best_so_far,
)
from renderer.fitted_set import FittedSet
from renderer.triplane import shrink_planes
from runtime.config import check_settings, setting
from runtime.errors import UserError
from runtime.files import write_json, write_text
from runtime.runs import RunFolder
from studies.conditioning_baselines import BASELINES, baseline_planes
from studies.upsampling import ENLARGED, UPSAMPLER_VARIANTS, upsampler_training

MODEL = "model."
VARIANTS: dict[str, dict[str, Any]] = {
    "reference": {},
    "tokens only": {"model.pixel_aligned": 0},
    "pixel-aligned only": {"model.multi_scale": False, "model.attention_sizes": (8,)},
    "single scale": {"model.multi_scale": False},
    "no positions": {"model.positions": False},
    "released convolutions": {"model.plane_convs": "released"},
    "no 3D-aware convolutions": {"model.plane_aware_levels": ()},
    "planes as they are": {"normalization": "none"},
    "mean triplane": {"normalization": "mean"},
    "epsilon": {"prediction_type": "epsilon"},
    "v": {"prediction_type": "v_prediction"},
    "v, min-SNR 5": {"prediction_type": "v_prediction", "snr_gamma": 5.0},
    "edm": {"prediction_type": "edm"},
    "edm, min-SNR 5": {"prediction_type": "edm", "snr_gamma": 5.0},
    "linear schedule": {"schedule": "linear"},
    "dropout 0.1": {"model.dropout": 0.1},
    "regression": {"objective": "regression"},
    "regression + residual": {"start": "regression"},
    "as published": {
        "normalization": "none",
        "prediction_type": "epsilon",
        "model.pixel_aligned": 0,
        "model.positions": False,
        "model.plane_convs": "released",
        "learned_variance": True,
        "condition_drop": 0.2,
        "sampler": SamplerConfig(10, "ddim", "leading", 1.0, 1.3),
    },
}
"""Variant → what it changes of the reference."""
PAPER = (
    "reference",
    "linear schedule",
    "single scale",
    "no 3D-aware convolutions",
    "upsampler",
    "upsampler, no augmentation",
    "upsampler, no rendering loss",
)
"""The paper's ablations: `--variants paper`."""
MEASURES = {
    "plane_error": "plane error",
    "psnr": "PSNR (dB)",
    "spread": "spread",
    "copy_ratio": "copies",
}


@dataclass
class StudyConditioningConfig:
    """Settings of ``triavatar study conditioning``."""

    triplanes: Path
    """Fitted set with training and validation people."""
    features: Path
    """Portrait features of the same people."""
    output_dir: Path
    """Run folder: a training for each variant, table.md, table.json."""
    root: Path | None = None
    """Multi-view set: its split, and true views to compare renderings with (else renderings of the
    fitted triplanes)."""
    variants: tuple[str, ...] = setting(
        ("reference", "tokens only", "no positions", "regression", "as published"), resumable=True
    )
    """What to compare; `paper` stands for the paper's ablations. Upsamplers enlarge what the
    reference samples, and need --root."""
    seeds: tuple[int, ...] = setting((0,), resumable=True)
    """Seeds of each variant."""
    steps: int = setting(1000, at_least=1)
    """Optimiser steps of each training."""
    batch_size: int = setting(8, at_least=1)
    """People in a step."""
    learning_rate: float = setting(1e-3, above=0)
    """Peak learning rate; it falls to 0 by a cosine."""
    plane_size: int = setting(32, at_least=8)
    """Side of the planes."""
    width: int = setting(32, at_least=4)
    """Channels of the networks at full resolution."""
    people: int = setting(32, at_least=1)
    """Validation people, at most."""
    views: int = setting(2, at_least=1)
    """Views of each."""
    pixels: int = setting(64, at_least=8)
    """Side of a view."""
    device: str = setting("auto", resumable=True)
    """Device: auto, cpu, cuda or cuda:N."""


def reference(config: StudyConditioningConfig, folder: Path, seed: int) -> TrainBaseConfig:
    """The training that variants change."""
    return TrainBaseConfig(
        output_dir=folder,
        triplanes=config.triplanes,
        features=config.features,
        root=config.root,
        seed=seed,
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=min(50, config.steps // 10),
        decay="cosine",
        ema_decay=0.99,
        device=config.device,
        log_every=max(1, config.steps // 20),
        save_every=max(1, config.steps // 4),
        sample_every=config.steps,
        sample_pixels=config.pixels,
        plane_size=config.plane_size,
        prediction_type="sample",
        model=BaseModelConfig(
            width=config.width,
            multipliers=(1, 2, 4),
            blocks=1,
            attention_sizes=(config.plane_size // 2, config.plane_size // 4),
            head_channels=32,
            latent_patch=2,
            token_width=2 * config.width,
            positions=True,
            pixel_aligned=config.width // 2,
        ),
        validation=ValidationConfig(
            every=max(1, config.steps // 4),
            people=config.people,
            draws=4,
            views=config.views,
            pixels=config.pixels,
        ),
    )


def varied(training: TrainBaseConfig, changes: dict[str, Any], folder: Path) -> TrainBaseConfig:
    """A training with what a variant changes; `start` is another variant's run folder."""
    inner = {key.removeprefix(MODEL): v for key, v in changes.items() if key.startswith(MODEL)}
    outer = {key: value for key, value in changes.items() if not key.startswith(MODEL)}
    if "start" in outer:
        outer["start"] = folder / f"{slug(outer['start'])}_{training.seed}"
    return replace(training, model=replace(training.model, **inner), **outer)


def slug(variant: str) -> str:
    """A variant's name for its folder."""
    return "".join(letter if letter.isalnum() else "_" for letter in variant)


def final_measures(folder: Path, prefix: str = "validation_") -> dict[str, float]:
    """The measures of a training's best validation."""
    found = best_so_far(folder / "snapshots" / "best") or {}
    named = {key: prefix + key for key in (*MEASURES, "loss")}
    return {key: found[name] for key, name in named.items() if name in found}


def study_conditioning(config: StudyConditioningConfig) -> None:
    """Train and measure every variant, then the baselines, and write the table.

    Raises:
        UserError: a variant is unknown, or there is nobody to validate on.
    """
    check_settings(config)
    variants = chosen_variants(config)
    run = RunFolder(config.output_dir, config, "study conditioning")
    rows = _baselines(config)
    for variant in variants:
        found: list[dict[str, float]] = []
        resized: list[dict[str, float]] = []
        for seed in config.seeds:
            folder = run.path / f"{slug(variant)}_{seed}"
            if variant in VARIANTS:
                train_base(varied(reference(config, folder, seed), VARIANTS[variant], run.path))
            else:
                before = reference(config, run.path / f"reference_{seed}", seed)
                train_base(before)
                changes = UPSAMPLER_VARIANTS[variant]
                train_upsampler(upsampler_training(before, folder, changes))
                resized.append(final_measures(folder, "validation_resized_"))
            found.append(final_measures(folder))
        if resized:
            rows[ENLARGED] = _of_seeds(resized)
        rows[variant] = _of_seeds(found)
        write_json(run.path / "table.json", rows)
        write_text(run.path / "table.md", table(rows))
    print(table(rows))


def chosen_variants(config: StudyConditioningConfig) -> list[str]:
    """The variants asked for, each once.

    Raises:
        UserError: one is unknown, or lacks what it needs.
    """
    known = VARIANTS | UPSAMPLER_VARIANTS
    named = [PAPER if name == "paper" else (name,) for name in config.variants]
    variants = list(dict.fromkeys(name for names in named for name in names))
    for name in variants:
        if name not in known:
            raise UserError(f"no variant {name!r}; known: paper, {', '.join(known)}")
        if name in UPSAMPLER_VARIANTS and config.root is None:
            raise UserError(f"{name} needs --root: it learns from true views")
    return variants


def _of_seeds(found: list[dict[str, float]]) -> dict[str, list[float]]:
    keys = [key for key in (*MEASURES, "loss") if key in found[0]]
    return {key: [round(each[key], 4) for each in found] for key in keys}


def _baselines(config: StudyConditioningConfig) -> dict[str, dict[str, list[float]]]:
    """What needs no diffusion at all, measured alike."""
    fitted, features = FittedSet.open(config.triplanes), FeatureSet.open(config.features)
    choice = SubjectsConfig(root=config.root)
    views = choice.open_views()
    subjects = paired_subjects(choice, views, fitted, features)
    people = subjects.validation[: config.people]
    if not people:
        raise UserError(f"{config.triplanes} holds no validation people to measure on")

    def load(names: list[str]) -> torch.Tensor:
        return torch.stack([shrink_planes(fitted.load(name), config.plane_size) for name in names])

    training, truth = load(subjects.train), load(people)
    compare = PlaneComparison(training)
    shown = HeldOutViews(views, fitted.decoder(), config.views, config.pixels)
    rows: dict[str, dict[str, list[float]]] = {}
    for name in BASELINES:
        planes = baseline_planes(name, features, subjects.train, training, people, truth)
        measured = compare(planes, truth)
        scores = [shown.psnr(*each) for each in zip(people, planes, truth, strict=True)]
        measured["psnr"] = sum(scores) / len(scores)
        rows[name] = {key: [round(value, 4)] for key, value in measured.items()}
    return rows


def table(rows: dict[str, dict[str, list[float]]]) -> str:
    """Markdown: a row for each variant, means over the seeds, ± half their range."""
    lines = ["| variant | " + " | ".join(MEASURES.values()) + " |"]
    lines.append("|---|" + "---:|" * len(MEASURES))
    for name, row in rows.items():
        cells = []
        for key in MEASURES:
            values = row.get(key)
            if not values:
                cells.append("–")
                continue
            mean = sum(values) / len(values)
            spread = (max(values) - min(values)) / 2
            cells.append(f"{mean:.3f}" + (f" ± {spread:.3f}" if len(values) > 1 else ""))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
