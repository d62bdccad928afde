"""The stage that samples full-resolution triplanes from low-resolution ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffusion.conditioning.features import PortraitFeatures
from diffusion.sampling.pipelines import UpsampleTriplanePipeline
from diffusion.sampling.sample_set import SampleSetConfig, TriplaneSampler, sample_set
from runtime.errors import UserError


@dataclass(kw_only=True)
class SampleUpsamplerConfig(SampleSetConfig):
    """Sample a full-resolution triplane for each low-resolution one; --triplanes is the output of
    sample-base."""

    enlarge: Literal["auto", "model", "resizing"] = "auto"
    """Enlarge by the model, by plain resizing, or by what the training's validation found closer to
    held-out people (auto)."""


class UpsamplerSampler(TriplaneSampler):
    """Samples full-resolution triplanes."""

    kind = UpsampleTriplanePipeline
    key = "upsampler"
    config: SampleUpsamplerConfig

    def __init__(self, config: SampleUpsamplerConfig):
        super().__init__(config)
        size = self.pipeline.unet.low_res_size
        expected = (3, self.pipeline.unet.plane_channels, size, size)
        if self.triplanes.shape != expected:
            raise UserError(
                f"{self.triplanes.folder} holds triplanes {list(self.triplanes.shape)}, the "
                f"upsampler takes {list(expected)}: give the output of sample-base with the base "
                "model of the same size"
            )

    def names(self) -> list[str]:
        return self.triplanes.names

    def draw(self, names: list[str], features: PortraitFeatures, seeds: list[int]) -> Tensor:
        planes = torch.stack([self.triplanes.load(name) for name in names])
        return self.pipeline(
            planes, features, sampler=self.config, seed=seeds, enlarge=self.config.enlarge
        )


def sample_upsampler(config: SampleUpsamplerConfig) -> None:
    """Sample the triplanes that aren't there yet; see :func:`sample_set`."""
    sample_set(config, UpsamplerSampler, "sample-upsampler")
