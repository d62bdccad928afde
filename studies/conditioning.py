"""``triavatar study conditioning``: what the parts of the base model are worth on strangers.

One model for each variant and seed, all with the same data and the same number of steps, measured
on held-out people beside what needs no diffusion at all. Measures are kept one by one: a stopped
study goes on behind the last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from diffusion.conditioning.feature_set import FeatureSet
from diffusion.conditioning.features import PortraitFeatures
from diffusion.data.subjects import SubjectsConfig, paired_subjects, stated_splits
from diffusion.sampling.model_files import load_pipeline
from diffusion.sampling.pipelines import BaseTriplanePipeline, UpsampleTriplanePipeline
from diffusion.sampling.solvers import SamplerConfig
from diffusion.training.train_base import train_base
from diffusion.training.train_upsampler import train_upsampler
from renderer.fitted_set import FittedSet
from renderer.triplane import shrink_planes
from runtime.config import check_settings
from runtime.devices import select_device
from runtime.errors import UserError
from runtime.files import read_json, write_json, write_text
from runtime.formats.tensor_files import load_tensors, save_tensors
from runtime.runs import RunFolder
from runtime.seeds import seed_of
from studies.conditioning_baselines import (
    BASELINES,
    LIKENESS,
    LINEAR,
    LINEAR_SMALL,
    baseline_planes,
    likeness_planes,
)
from studies.conditioning_variants import (
    VARIANTS,
    StudyConditioningConfig,
    chosen_variants,
    reference,
    slug,
    varied,
)
from studies.strangers import BOUNDS, Strangers, enlarged, table
from studies.upsampling import (
    ENLARGED,
    ENLARGED_WITH_MEAN,
    UPSAMPLER_VARIANTS,
    upsampler_training,
)

Made = tuple[Tensor, Tensor | None, float | None]
"""Planes of all people, those of the first few once more, and CPU seconds a person."""
BATCH = 4
"""People sampled at once."""


def study_conditioning(config: StudyConditioningConfig) -> None:
    """Train and measure every variant, then the baselines, and write the table.

    Raises:
        UserError: a variant is unknown, or there is nobody to measure on.
    """
    check_settings(config)
    variants = chosen_variants(config)
    run = RunFolder(config.output_dir, config, "study conditioning")
    study = Study(config, run.path)
    rows: dict[str, dict[str, list[float]]] = {}

    def add(name: str, found: list[dict[str, float]]) -> None:
        rows[name] = {key: [round(each[key], 4) for each in found] for key in found[0]}
        write_json(run.path / "table.json", rows)
        write_text(run.path / "table.md", table(rows))

    for name in study.baselines():
        add(name, [study.measured(f"baseline_{slug(name)}", partial(study.baseline, name))])
    for variant in variants:
        for name, measure in study.ways(variant).items():
            add(name, [measure(seed) for seed in config.seeds])
    print(table(rows))


class Study:
    """The data of a study, its trainings, and what was measured so far.

    Args:
        config: settings.
        folder: the run's.
    """

    def __init__(self, config: StudyConditioningConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.fitted = FittedSet.open(config.triplanes)
        self.features = FeatureSet.open(config.features)
        choice = SubjectsConfig(root=config.root)
        self.views = choice.open_views()
        splits = stated_splits(self.views, self.fitted, self.features) or {}
        ready = set(self.fitted.names) & set(self.features.names)
        people = [n for split in config.held_out for n in splits.get(split, []) if n in ready]
        if not people:
            raise UserError(
                f"{config.triplanes} holds no {' or '.join(config.held_out)} people to measure on"
            )
        train = paired_subjects(choice, self.views, self.fitted, self.features).train
        self.strangers = Strangers(
            self.fitted, self.views, train, people[: config.people], config.views, config.pixels
        )
        self.device = select_device(config.device)
        self.trained: set[Path] = set()

    def measured(self, name: str, make: Callable[[], Made]) -> dict[str, float]:
        """Measures of what `make` gives; kept, so that a stopped study goes on behind them."""
        file = self.folder / "measures" / f"{name}.json"
        if not file.is_file():
            write_json(file, self.strangers.measures(*make()))
        return {key: float(value) for key, value in read_json(file, 2**20).items()}

    # What needs no training.

    def baselines(self) -> list[str]:
        """Return the rows that need no diffusion."""
        return [*BOUNDS, *BASELINES, LINEAR_SMALL, *(LIKENESS if self.config.likeness else ())]

    def baseline(self, name: str) -> Made:
        """Planes of a baseline, made at the fits' size."""
        clock, people = time.process_time(), self.strangers.names
        if name in BOUNDS:
            return self.strangers.bound(name, self.config.plane_size), None, None
        if name in LIKENESS:
            assert self.config.likeness is not None and self.views is not None
            planes = likeness_planes(
                LIKENESS[name], self.config.likeness, self.fitted, self.views, people
            )
            return planes, None, (time.process_time() - clock) / len(people)
        train, small = self.strangers.train, name == LINEAR_SMALL
        training = torch.stack([self.fitted.load(each) for each in train])
        asked = (self.features, train, training, people, self.strangers.truth)
        planes = baseline_planes(LINEAR if small else name, *asked)
        if small:
            shrunk = [shrink_planes(each, self.config.plane_size) for each in planes]
            planes = torch.stack(shrunk)
        return planes, None, None

    # What is trained.

    def ways(self, variant: str) -> dict[str, Callable[[int], dict[str, float]]]:
        """Rows of a variant and how to measure each for a seed; upsamplers stand by resizing."""
        if variant in VARIANTS:
            return {variant: partial(self.base_measures, variant)}
        return {
            ENLARGED: partial(self.resized_measures, False),
            ENLARGED_WITH_MEAN: partial(self.resized_measures, True),
            variant: partial(self.upsampler_measures, variant),
        }

    def base(self, variant: str, seed: int) -> Path:
        """The run folder of a base model, trained if it isn't yet."""
        folder = self.folder / f"{slug(variant)}_{seed}"
        if folder not in self.trained:
            plain = reference(self.config, folder, seed)
            train_base(varied(plain, VARIANTS[variant], self.folder))
            self.trained.add(folder)
        return folder

    def base_measures(self, variant: str, seed: int) -> dict[str, float]:
        """Measures of a base model's samples."""
        folder = self.base(variant, seed)
        return self.measured(folder.name, partial(self.sampled, folder, variant))

    def portraits(self, names: Sequence[str]) -> PortraitFeatures:
        """Features of people's portraits."""
        return PortraitFeatures.stack([self.features.load(name) for name in names])

    def sampled(self, folder: Path, variant: str) -> Made:
        """Samples of a trained base model, the first people's twice."""
        pipeline, _ = load_pipeline(BaseTriplanePipeline, folder, self.device)
        sampler = VARIANTS[variant].get("sampler", SamplerConfig())
        names = self.strangers.names

        def draw(first: int, last: int, turn: int) -> Tensor:
            parts = []
            for begin in range(first, last, BATCH):
                batch = names[begin : min(begin + BATCH, last)]
                seeds = [seed_of("study", turn, name) for name in batch]
                parts.append(pipeline(self.portraits(batch), sampler=sampler, seed=seeds).cpu())
            return torch.cat(parts)

        clock = time.process_time()
        planes = draw(0, len(names), 0)
        seconds = (time.process_time() - clock) / len(names)
        twice = min(self.config.samples, len(names))
        return planes, draw(0, twice, 1) if twice else None, seconds

    def small(self, seed: int) -> Tensor:
        """Planes of the reference for all people, to be enlarged."""
        file = self.folder / "measures" / f"small_{seed}.safetensors"
        if not file.is_file():
            planes = self.sampled(self.base("reference", seed), "reference")[0]
            save_tensors(file, {"planes": planes.contiguous()})
        return load_tensors(file, {"planes": (None,) * 5})[0]["planes"]

    def resized_measures(self, with_mean: bool, seed: int) -> dict[str, float]:
        """Measures of resized planes, with the mean triplane's fine detail or without."""

        def make() -> Made:
            small = self.small(seed)
            # The mean's detail is added where planes come small.
            return small if with_mean else enlarged(small, self.strangers.size), None, None

        return self.measured(f"resizing{'_mean' if with_mean else ''}_{seed}", make)

    def upsampler_measures(self, variant: str, seed: int) -> dict[str, float]:
        """Measures of an upsampler's planes, made of the reference's samples."""
        folder = self.folder / f"{slug(variant)}_{seed}"
        before = reference(self.config, self.base("reference", seed), seed)
        train_upsampler(upsampler_training(before, folder, UPSAMPLER_VARIANTS[variant]))

        def make() -> Made:
            pipeline, _ = load_pipeline(UpsampleTriplanePipeline, folder, self.device)
            names, small = self.strangers.names, self.small(seed)
            clock, parts = time.process_time(), []
            for first in range(0, len(names), BATCH):
                batch = names[first : first + BATCH]
                given = self.portraits(batch)
                low, seeds = small[first : first + BATCH], [seed_of("study", 0, n) for n in batch]
                parts.append(pipeline(low, given, seed=seeds, enlarge="model").cpu())
            return torch.cat(parts), None, (time.process_time() - clock) / len(names)

        return self.measured(folder.name, make)
