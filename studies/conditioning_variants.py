"""What ``triavatar study conditioning`` compares: its settings, and a training for each variant.

A variant says what it changes of the reference, so that a row tells of one thing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from diffusion.sampling.solvers import SamplerConfig
from diffusion.training.train_base import BaseModelConfig, TrainBaseConfig
from diffusion.training.validation import ValidationConfig
from runtime.config import setting
from runtime.errors import UserError
from studies.upsampling import UPSAMPLER_VARIANTS

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
    "linear start": {"linear_start": True},
    "linear start, regression": {"linear_start": True, "objective": "regression"},
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
    likeness: Path | None = setting(None, resumable=True)
    """Folder of train-likeness, learnt from the same training people: adds what its linear model
    and its regression make of the portraits (needs --root)."""
    held_out: tuple[Literal["validation", "test"], ...] = ("validation",)
    """Whom to measure on. The last weights are measured, nothing is chosen by these people."""
    seeds: tuple[int, ...] = setting((0,), resumable=True)
    """Seeds of each variant."""
    steps: int = setting(1000, at_least=1, at_most=10**9)
    """Optimiser steps of each training."""
    batch_size: int = setting(8, at_least=1, at_most=2**16)
    """People in a step."""
    learning_rate: float = setting(1e-3, above=0)
    """Peak learning rate; it falls to 0 by a cosine."""
    plane_size: int = setting(32, at_least=8, at_most=1024)
    """Side of the planes."""
    width: int = setting(32, at_least=4, at_most=4096)
    """Channels of the networks at full resolution."""
    people: int = setting(32, at_least=1, at_most=10**6)
    """Held-out people, at most."""
    samples: int = setting(8, at_least=0)
    """People whose portraits are sampled twice, for the variety of samples."""
    views: int = setting(2, at_least=1, at_most=1000)
    """Views of each."""
    pixels: int = setting(64, at_least=8, at_most=4096)
    """Side of a view."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Precision of the trainings' forward passes."""
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
        mixed_precision=config.mixed_precision,
        log_every=max(1, config.steps // 20),
        save_every=max(1, config.steps // 12),
        sample_every=0,
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
            # The study measures the last weights; upsamplers look who enlarges better.
            every=0,
            people=min(config.people, 16),
            draws=1,
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
    if config.likeness is not None and config.root is None:
        raise UserError("--likeness needs --root, the set with the portraits")
    return variants
