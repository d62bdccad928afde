"""What the upsampler trains on: high- and low-resolution planes with patches of true views.

Letters: B batch, C channels, H plane size, h size of the low-resolution planes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from diffusion.training.augment import degrade
from diffusion.training.pairs import DenoisingBatch, DenoisingDataset, PairedSet
from diffusion.training.render_loss import PatchSource, RayPatch
from renderer.triplane import rollout, unroll
from runtime.seeds import generator


@dataclass
class AugmentConfig:
    """Damage to the low-resolution planes, so that generated ones look familiar."""

    probability: float = 0.5
    """Probability of each of blur, resampling and noise; 0 leaves the planes as they are."""
    max_blur: float = 1.5
    """Largest sigma of the blur in texels."""
    min_scale: float = 0.5
    """Smallest size of resampled planes, as a share."""
    max_noise: float = 0.05
    """Largest standard deviation of the noise (planes lie in -1..1)."""


@dataclass
class UpsamplingBatch(DenoisingBatch):
    """Denoising problems with their low-resolution planes and true patches.

    Attributes:
        low_res: damaged planes, rolled out [B, C, h, 3·h] in -1..1.
        patch: B patches of true views; None without a render loss.
    """

    low_res: Tensor
    patch: RayPatch | None

    def to(self, device: torch.device | str) -> UpsamplingBatch:
        moved = super().to(device)
        assert isinstance(moved, UpsamplingBatch)
        moved.low_res = self.low_res.to(device)
        moved.patch = self.patch.to(device) if self.patch is not None else None
        return moved

    @staticmethod
    def join(items: list[UpsamplingBatch]) -> UpsamplingBatch:
        """Concatenates along B."""
        patches = [item.patch for item in items if item.patch is not None]
        return UpsamplingBatch(
            **_values(DenoisingBatch.join(list(items))),
            low_res=torch.cat([item.low_res for item in items]),
            patch=RayPatch.join(patches) if patches else None,
        )


def _values(batch: DenoisingBatch) -> dict[str, Any]:
    return {item.name: getattr(batch, item.name) for item in fields(DenoisingBatch)}


class UpsamplingDataset(DenoisingDataset):
    """Upsampling problems by position in an endless list; `pairs` holds (low, high) sizes."""

    def __init__(
        self,
        pairs: PairedSet,
        num_timesteps: int,
        condition_drop: float,
        seed: int,
        augment: AugmentConfig,
        patches: PatchSource | None,
    ) -> None:
        super().__init__(pairs, num_timesteps, condition_drop, seed, "upsampler")
        self.augment, self.patches = augment, patches

    def __getitem__(self, position: int) -> UpsamplingBatch:
        problem = super().__getitem__(position)
        (name,) = problem.names
        random = generator(self.seed, "augment", position)
        low_res = unroll(self.pairs.planes(name)[0])[0]
        low_res = rollout(degrade(low_res, random, **asdict(self.augment))[None])
        patch = None
        if self.patches is not None:
            patch = self.patches.draw(name, generator(self.seed, "patch", position))
        return UpsamplingBatch(**_values(problem), low_res=low_res, patch=patch)
