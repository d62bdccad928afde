"""Training pairs of the diffusion models: triplanes paired with portraits.

Letters: B batch, C channels, H, W plane size; a rolled-out triplane is [C, H, 3·W].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import Self

from diffusion.networks.normalization import NormalizationName, PlaneNormalization
from diffusion.data.order import ShuffledOrder, WindowedOrder
from diffusion.data.portraits import (
    PicturePortraits,
    Portrait,
    StoredPortraits,
    join_portraits,
)
from diffusion.data.prepared import PreparedRows
from renderer.fitted_set import FittedSet
from renderer.triplane import mirror_planes, rollout, shrink_planes
from runtime.errors import UserError
from runtime.seeds import generator

MEASURED = 1024
"""Triplanes that the normalisation is measured on, at most."""


@dataclass
class DenoisingBatch:
    """A batch of denoising problems, as small as it can travel to the device.

    Attributes:
        names: B object names.
        planes: the clean triplanes, fp16 [B, P, C, H, H] in -1..1.
        seeds: [B] long; name the noise, which is drawn where the planes are.
        timesteps: [B] long in 0..T-1.
        drop: [B] bool, true where the portrait is withheld (classifier-free guidance).
        portrait: of the B people, features or pictures.
    """

    names: list[str]
    planes: Tensor
    seeds: Tensor
    timesteps: Tensor
    drop: Tensor
    portrait: Portrait

    @property
    def noise(self) -> Tensor:
        """ε, rolled out [B, C, H, 3·H] float32, on the planes' device.

        Every sample has its own stream: its noise depends neither on the batch nor on processes.
        """
        shape, device = rolled_shape(self.planes), self.planes.device
        return torch.stack(
            [
                torch.randn(
                    shape, generator=torch.Generator(device).manual_seed(seed), device=device
                )
                for seed in self.seeds.tolist()
            ]
        )

    def each(self, change: Callable[[Any], Any]) -> Self:
        """The batch with every tensor and portrait changed."""
        held = ((item.name, getattr(self, item.name)) for item in fields(self))
        return replace(
            self, **{name: change(value) for name, value in held if hasattr(value, "to")}
        )

    def to(self, device: torch.device | str) -> Self:
        """Move everything; from pinned memory without waiting."""
        return self.each(
            lambda value: (
                value.to(device, non_blocking=True)
                if isinstance(value, Tensor)
                else value.to(device)
            )
        )

    def pin_memory(self) -> Self:
        """Copy into memory that a GPU reads by itself (asked for by the data loader)."""
        return self.each(lambda value: value.pin_memory())

    @staticmethod
    def join(items: list[DenoisingBatch]) -> DenoisingBatch:
        """Concatenates along B."""
        return DenoisingBatch(
            [name for item in items for name in item.names],
            torch.cat([item.planes for item in items]),
            torch.cat([item.seeds for item in items]),
            torch.cat([item.timesteps for item in items]),
            torch.cat([item.drop for item in items]),
            join_portraits([item.portrait for item in items]),
        )


def rolled_shape(planes: Tensor) -> tuple[int, int, int]:
    """[C, H, 3·H] of planes [B, P, C, H, H]."""
    channels, size = planes.shape[2], planes.shape[3]
    return channels, size, 3 * size


class PairedSet:
    """Triplanes of a fitted set with the portraits of the same names.

    Args:
        fitted: the triplanes.
        portraits: of the same people.
        names: whom to train on; the normalisation is measured on them.
        sizes: plane sizes wanted. Planes of another size than the set's are shrunk (antialiased)
            once, into a file beside the set that all processes share.
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
        normalization: NormalizationName = "none",
    ) -> None:
        _check(fitted, portraits, names, sizes)
        self.fitted, self.portraits, self.names, self.sizes = fitted, portraits, names, sizes
        self._rows = {size: self._prepared(size) for size in sizes if size != fitted.shape[-1]}
        self.normalization = PlaneNormalization.identity(fitted.shape[1])
        if normalization != "none":
            measured = (self.true_planes(name) for name in islice(names, MEASURED))
            self.normalization = PlaneNormalization.of(measured, max(sizes), normalization)

    def _prepared(self, size: int) -> PreparedRows:
        fitted = self.fitted
        return PreparedRows(
            fitted.folder / "shrunk" / f"planes_{size}.rows",
            fitted.names,
            (*fitted.shape[:2], size, size),
            torch.float16,
            lambda name: shrink_planes(fitted.load(name), size),
            fitted.path,
        )

    def __len__(self) -> int:
        return len(self.names)

    def stored(self, name: str, size: int) -> Tensor:
        """A person's planes as they lie on disk, fp16 [P, C, H, H]."""
        rows = self._rows.get(size)
        return self.fitted.load(name, torch.float16) if rows is None else rows[name]

    def planes(self, name: str, mirrored: bool = False) -> tuple[Tensor, ...]:
        """A person's planes [P, C, H, H] float32 for each of `sizes`."""
        planes = tuple(self.stored(name, size).float() for size in self.sizes)
        return tuple(map(mirror_planes, planes)) if mirrored else planes

    def values(self, name: str, mirrored: bool = False) -> tuple[Tensor, ...]:
        """Normalised, rolled out [1, C, H, 3·H] for each of `sizes`."""
        return tuple(
            rollout(self.normalization.normalized(planes[None]))
            for planes in self.planes(name, mirrored)
        )

    def true_planes(self, name: str) -> Tensor:
        """Planes [P, C, H, H] float32 at the last of `sizes`."""
        return self.stored(name, self.sizes[-1]).float()


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
        self.pairs = pairs
        self.num_timesteps = num_timesteps
        self.condition_drop = condition_drop
        self.seed, self.stream, self.mirror = seed, stream, mirror
        self.order = people_order(pairs, seed, stream, "order")

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
        planes = self.pairs.stored(name, self.pairs.sizes[-1])
        if mirrored:
            planes = mirror_planes(planes)
        at = torch.randint(self.num_timesteps, (1,), generator=random)
        drop = torch.rand(1, generator=random) < self.condition_drop
        if timestep is not None:
            at, drop = torch.full_like(at, timestep), torch.zeros_like(drop)
        seed = torch.randint(2**62, (1,), generator=random)
        # Validation always sees the frontal portrait.
        drawn_with = random if timestep is None else None
        portrait = self.pairs.portraits.draw(name, drawn_with, mirrored)
        return DenoisingBatch([name], planes[None], seed, at, drop, portrait)

    def validation_problems(self, names: Sequence[str], draws: int) -> list[DenoisingBatch]:
        """Problems of people at noise levels spread evenly over the timesteps, always the same."""
        levels = [int((draw + 0.5) / draws * self.num_timesteps) for draw in range(draws)]
        return [
            self.problem(name, generator(self.seed, "validation", name, level), timestep=level)
            for name in names
            for level in levels
        ]


def people_order(pairs: PairedSet, *key: int | str) -> ShuffledOrder:
    """The order of people: any, or shard by shard where they lie in shards."""
    shards = pairs.fitted.shards
    if shards is None:
        return ShuffledOrder(len(pairs), *key)
    place = {name: index for index, name in enumerate(pairs.names)}
    groups = [[place[n] for n in members if n in place] for members in shards.members]
    return WindowedOrder([group for group in groups if group], *key)


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
