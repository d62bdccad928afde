"""Training pairs of the diffusion models: triplanes paired with portraits.

Letters: B batch, C channels, H, W plane size; a rolled-out triplane is [C, H, 3·W].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from diffusion.networks.normalization import NormalizationName, PlaneNormalization
from diffusion.data.cache import Cache, tensor_bytes
from diffusion.data.order import ShuffledOrder
from diffusion.data.portraits import (
    PicturePortraits,
    Portrait,
    StoredPortraits,
    join_portraits,
)
from renderer.fitted_set import FittedSet
from renderer.triplane import mirror_planes, rollout, shrink_planes
from runtime.errors import UserError
from runtime.seeds import generator

MEASURED = 1024
"""Triplanes that the normalisation is measured on, at most."""


@dataclass
class DenoisingBatch:
    """A batch of denoising problems.

    Attributes:
        names: B object names.
        start: x_0, normalised values rolled out [B, C, H, 3·W].
        noise: ε like start.
        timesteps: [B] long in 0..T-1.
        drop: [B] bool, true where the portrait is withheld (classifier-free guidance).
        portrait: of the B people, features or pictures.
    """

    names: list[str]
    start: Tensor
    noise: Tensor
    timesteps: Tensor
    drop: Tensor
    portrait: Portrait

    def to(self, device: torch.device | str) -> DenoisingBatch:
        return replace(
            self,
            start=self.start.to(device),
            noise=self.noise.to(device),
            timesteps=self.timesteps.to(device),
            drop=self.drop.to(device),
            portrait=self.portrait.to(device),
        )

    @staticmethod
    def join(items: list[DenoisingBatch]) -> DenoisingBatch:
        """Concatenates along B."""
        return DenoisingBatch(
            [name for item in items for name in item.names],
            torch.cat([item.start for item in items]),
            torch.cat([item.noise for item in items]),
            torch.cat([item.timesteps for item in items]),
            torch.cat([item.drop for item in items]),
            join_portraits([item.portrait for item in items]),
        )


class PairedSet:
    """Triplanes of a fitted set with the portraits of the same names.

    Args:
        fitted: the triplanes.
        portraits: of the same people.
        names: whom to train on; the normalisation is measured on them.
        sizes: plane sizes wanted; every triplane is resized to each (antialiased).
        cache_gib: memory for triplanes, GiB each process.
        normalization: of the planes.

    Attributes:
        normalization: maps planes to what the models see.
    """

    def __init__(
        self,
        fitted: FittedSet,
        portraits: StoredPortraits | PicturePortraits,
        names: list[str],
        sizes: tuple[int, ...],
        cache_gib: float = 2.0,
        normalization: NormalizationName = "none",
    ) -> None:
        _check(fitted, portraits, names, sizes)
        self.fitted, self.portraits, self.names, self.sizes = fitted, portraits, names, sizes
        self._planes: Cache[tuple[Tensor, ...]] = Cache(
            self._load, lambda item: sum(map(tensor_bytes, item)), cache_gib * 2**30
        )
        self.normalization = PlaneNormalization.identity(fitted.shape[1])
        if normalization != "none":
            measured = (self.true_planes(name) for name in islice(names, MEASURED))
            self.normalization = PlaneNormalization.of(measured, max(sizes), normalization)

    def _load(self, name: str) -> tuple[Tensor, ...]:
        planes = self.fitted.load(name)
        if planes.abs().max() > 1:
            raise UserError(f"{self.fitted.path(name)} leaves the range -1..1: fit it again")
        return tuple(shrink_planes(planes, size) for size in self.sizes)

    def __len__(self) -> int:
        return len(self.names)

    def planes(self, name: str, mirrored: bool = False) -> tuple[Tensor, ...]:
        """A person's planes [P, C, H, H] for each of `sizes`."""
        planes = self._planes[name]
        return tuple(map(mirror_planes, planes)) if mirrored else planes

    def values(self, name: str, mirrored: bool = False) -> tuple[Tensor, ...]:
        """Normalised, rolled out [1, C, H, 3·H] for each of `sizes`."""
        return tuple(
            rollout(self.normalization.normalized(planes[None]))
            for planes in self.planes(name, mirrored)
        )

    def true_planes(self, name: str) -> Tensor:
        """Planes [P, C, H, H] at the last of `sizes`."""
        return self.planes(name)[-1]


def _check(
    fitted: FittedSet,
    portraits: StoredPortraits | PicturePortraits,
    names: Sequence[str],
    sizes: Sequence[int],
) -> None:
    full = fitted.shape[-1]
    for size in sizes:
        if not 0 < size <= full:
            raise UserError(
                f"plane size {size} can't be made from {fitted.folder}, whose planes have "
                f"{full} texels a side"
            )
    there = set(fitted.names)
    missing = [name for name in names if name not in there]
    if missing:
        raise UserError(
            f"{fitted.folder} lacks triplanes of {len(missing)} training subjects "
            f"({', '.join(missing[:3])}): run fit-triplanes for them or name fewer in txt_file"
        )
    missing = portraits.missing(names)
    if missing:
        raise UserError(
            f"there are no portraits of {len(missing)} training subjects "
            f"({', '.join(missing[:3])}): run encode-features for them"
        )


class DenoisingDataset(Dataset[DenoisingBatch]):
    """Denoising problems by position in an endless list (see diffusion.data.order).

    Args:
        pairs: triplanes and portraits; the last of its sizes is denoised.
        num_timesteps: T.
        condition_drop: share of problems whose portrait is withheld.
        seed: of the order, noise, timesteps and drops.
        stream: name of the random stream.
        mirror: half of the problems are of the mirrored person.
    """

    def __init__(
        self,
        pairs: PairedSet,
        num_timesteps: int,
        condition_drop: float,
        seed: int,
        stream: str,
        mirror: bool = False,
    ) -> None:
        if not 0 <= condition_drop <= 1:
            raise UserError(f"condition_drop is {condition_drop}: it must lie in 0..1")
        self.pairs = pairs
        self.num_timesteps = num_timesteps
        self.condition_drop = condition_drop
        self.seed, self.stream, self.mirror = seed, stream, mirror
        self.order = ShuffledOrder(len(pairs), seed, stream, "order")

    def name_at(self, position: int) -> str:
        return self.pairs.names[self.order[position]]

    def mirrored_at(self, position: int) -> bool:
        """Return whether the problem at a position is of the mirrored person."""
        if not self.mirror:
            return False
        random = generator(self.seed, self.stream, "mirror", position)
        return bool(torch.randint(2, (), generator=random))

    def __getitem__(self, position: int) -> DenoisingBatch:
        random = generator(self.seed, self.stream, position)
        return self.problem(self.name_at(position), random, self.mirrored_at(position))

    def problem(
        self,
        name: str,
        random: torch.Generator,
        mirrored: bool = False,
        timestep: int | None = None,
    ) -> DenoisingBatch:
        """One problem, B = 1; with a given timestep it always comes with its portrait."""
        start = self.pairs.values(name, mirrored)[-1]
        at = torch.randint(self.num_timesteps, (1,), generator=random)
        drop = torch.rand(1, generator=random) < self.condition_drop
        if timestep is not None:
            at, drop = torch.full_like(at, timestep), torch.zeros_like(drop)
        noise = torch.randn(start.shape, generator=random)
        portrait = self.pairs.portraits.draw(name, random, mirrored)
        return DenoisingBatch([name], start, noise, at, drop, portrait)

    def validation_problems(self, names: Sequence[str], draws: int) -> list[DenoisingBatch]:
        """Problems of people at noise levels spread evenly over the timesteps, always the same."""
        levels = [int((draw + 0.5) / draws * self.num_timesteps) for draw in range(draws)]
        return [
            self.problem(name, generator(self.seed, "validation", name, level), timestep=level)
            for name in names
            for level in levels
        ]


def describe_data(pairs: PairedSet) -> dict[str, Any]:
    """Return what a model was trained on, for the file beside its weights."""
    return {
        "decoder_hash": pairs.fitted.manifest["decoder_hash"],
        "vae_hash": pairs.portraits.manifest["vae_hash"],
        "scaling_factor": pairs.portraits.manifest["scaling_factor"],
        "image_size": pairs.portraits.manifest["image_size"],
        "channels": pairs.fitted.shape[1],
        "plane_sizes": list(pairs.sizes),
        "subjects": len(pairs),
    }
