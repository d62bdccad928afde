"""The stage that samples low-resolution triplanes from portrait features."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diffusion.conditioning.features import PortraitFeatures
from diffusion.sampling.pipelines import BaseTriplanePipeline
from diffusion.sampling.sample_set import SampleSetConfig, TriplaneSampler, sample_set


@dataclass(kw_only=True)
class SampleBaseConfig(SampleSetConfig):
    """Sample a low-resolution triplane for each portrait; --triplanes is the fitted set that the
    model was trained on."""


class BaseSampler(TriplaneSampler):
    """Samples low-resolution triplanes."""

    kind = BaseTriplanePipeline
    key = "base"

    def names(self) -> list[str]:
        return self.store.names

    def draw(self, names: list[str], features: PortraitFeatures, seeds: list[int]) -> Tensor:
        return self.pipeline(features, sampler=self.config, seed=seeds)


def sample_base(config: SampleBaseConfig) -> None:
    """Sample the triplanes that aren't there yet; see :func:`sample_set`."""
    sample_set(config, BaseSampler, "sample-base")
