"""Training pairs of the upsampler: high- and low-resolution planes with patches of true views.

Letters: B batch, C channels, H plane size, h size of the low-resolution planes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from diffusion.data.augment import degrade
from diffusion.data.pairs import DenoisingBatch, DenoisingDataset, PairedSet
from diffusion.training.render_loss import PatchSource, RayPatch
from renderer.triplane import mirror_planes
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
        low_res: damaged planes, fp16 [B, P, C, h, h] in -1..1.
        patch: B patches of true views; None without a render loss.
    """

    low_res: Tensor
    patch: RayPatch | None

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
        mirror: bool = False,
    ) -> None:
        super().__init__(pairs, num_timesteps, condition_drop, seed, "upsampler", mirror)
        self.augment, self.patches = augment, patches

    def __getitem__(self, position: int) -> UpsamplingBatch:
        random = generator(self.seed, self.stream, position)
        mirrored = self.mirrored_at(position)
        item = self.problem(self.name_at(position), random, mirrored)
        small = item.low_res[0].float()
        damage = generator(self.seed, "augment", position)
        item.low_res = degrade(small, damage, **asdict(self.augment)).half()[None]
        if self.patches is not None:
            patch = self.patches.draw(item.names[0], generator(self.seed, "patch", position))
            item.patch = patch.mirrored() if mirrored else patch
        return item

    def problem(
        self,
        name: str,
        random: torch.Generator,
        mirrored: bool = False,
        timestep: int | None = None,
    ) -> UpsamplingBatch:
        """One problem, B = 1, its small planes undamaged and without a patch."""
        small = self.pairs.stored(name, self.pairs.sizes[0])
        small = mirror_planes(small) if mirrored else small
        problem = super().problem(name, random, mirrored, timestep)
        return UpsamplingBatch(**_values(problem), low_res=small[None], patch=None)
