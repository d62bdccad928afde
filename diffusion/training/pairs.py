"""What the diffusion models train on: triplanes paired with portrait features.

Letters: B batch, C channels, H, W plane size; a rolled-out triplane is [C, H, 3·W].
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from captures.multiview import MultiViewSet, select_names
from diffusion.conditioning.feature_set import FeatureSet
from diffusion.conditioning.features import PortraitFeatures
from diffusion.networks import MeanTriplane
from diffusion.training.order import ShuffledOrder
from renderer.fitted_set import FittedSet
from renderer.triplane import rollout, shrink_planes, unroll
from runtime.errors import UserError
from runtime.seeds import generator

Item = TypeVar("Item")

MEASURED = 1024
"""Triplanes that a mean is taken of, at most."""


@dataclass
class DenoisingBatch:
    """A batch of denoising problems.

    Attributes:
        names: B object names.
        start: x_0, rolled-out planes (or differences from a mean) [B, C, H, 3·W] in -1..1.
        noise: ε like start.
        timesteps: [B] long in 0..T-1.
        drop: [B] bool, true where the portrait is withheld (classifier-free guidance).
        features: of the B portraits.
    """

    names: list[str]
    start: Tensor
    noise: Tensor
    timesteps: Tensor
    drop: Tensor
    features: PortraitFeatures

    def to(self, device: torch.device | str) -> DenoisingBatch:
        return replace(
            self,
            start=self.start.to(device),
            noise=self.noise.to(device),
            timesteps=self.timesteps.to(device),
            drop=self.drop.to(device),
            features=self.features.to(device),
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
            PortraitFeatures.stack([item.features for item in items]),
        )


class Cache(Generic[Item]):
    """Keeps what was loaded last, up to a number of bytes."""

    def __init__(self, load: Callable[[str], Item], size_of: Callable[[Item], int], limit: float):
        self.load, self.size_of, self.limit = load, size_of, limit
        self.items: OrderedDict[str, Item] = OrderedDict()
        self.bytes = 0

    def __getitem__(self, name: str) -> Item:
        if name in self.items:
            self.items.move_to_end(name)
            return self.items[name]
        item = self.load(name)
        self.items[name] = item
        self.bytes += self.size_of(item)
        while self.bytes > self.limit and self.items:
            _, dropped = self.items.popitem(last=False)
            self.bytes -= self.size_of(dropped)
        return item


def tensor_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def feature_bytes(features: PortraitFeatures) -> int:
    return sum(tensor_bytes(tensor) for tensor in (features.latent, *features.levels))


class PairedSet:
    """Triplanes of a fitted set with the features of the same names' portraits.

    Args:
        fitted: the triplanes.
        features: the portraits' features.
        names: which objects.
        sizes: plane sizes wanted; every triplane is resized to each (antialiased).
        cache_gib: memory for triplanes and features, GiB each process.
        subtract_mean: give scaled differences from the mean triplane in place of the planes.

    Attributes:
        mean: the mean triplane at the largest of the sizes; None unless it is subtracted.
    """

    def __init__(
        self,
        fitted: FittedSet,
        features: FeatureSet,
        names: list[str],
        sizes: tuple[int, ...],
        cache_gib: float = 4.0,
        subtract_mean: bool = False,
    ) -> None:
        full = fitted.shape[-1]
        for size in sizes:
            if not 0 < size <= full:
                raise UserError(
                    f"plane size {size} can't be made from {fitted.folder}, whose planes have "
                    f"{full} texels a side"
                )
        missing = [name for name in names if not fitted.path(name).exists()]
        if missing:
            raise UserError(
                f"{fitted.folder} lacks triplanes of {len(missing)} training subjects "
                f"({', '.join(missing[:3])}): run fit-triplanes for them or name fewer in txt_file"
            )
        missing = [name for name in names if name not in features]
        if missing:
            raise UserError(
                f"{features.folder} lacks features of {len(missing)} training subjects "
                f"({', '.join(missing[:3])}): run encode-features for them"
            )
        self.fitted, self.features, self.names, self.sizes = fitted, features, names, sizes
        self.mean: MeanTriplane | None = None
        if subtract_mean:
            measured = islice(names, MEASURED)
            largest = max(sizes)
            shrunken = (shrink_planes(fitted.load(name), largest) for name in measured)
            self.mean = MeanTriplane.of(shrunken, largest)
        half = cache_gib * 2**30 / 2
        self._planes = Cache(
            self._load_planes, lambda item: sum(tensor_bytes(t) for t in item), half
        )
        self._features = Cache(features.load, feature_bytes, half)

    def _load_planes(self, name: str) -> tuple[Tensor, ...]:
        planes = self.fitted.load(name)
        if planes.abs().max() > 1:
            raise UserError(f"{self.fitted.path(name)} leaves the range -1..1: fit it again")
        resized = (shrink_planes(planes, size)[None] for size in self.sizes)
        if self.mean is not None:
            resized = map(self.mean.differences, resized)
        return tuple(map(rollout, resized))

    def __len__(self) -> int:
        return len(self.names)

    def planes(self, name: str) -> tuple[Tensor, ...]:
        """Rolled-out planes, or differences, [1, C, H, 3·H] for each of `sizes`."""
        return self._planes[name]

    def whole(self, rolled_out: Tensor) -> Tensor:
        """What the models work on, rolled out [B, C, H, 3·H] → planes [B, P, C, H, H]."""
        planes = unroll(rolled_out)
        return planes if self.mean is None else self.mean.planes(planes)

    def true_planes(self, name: str) -> Tensor:
        """Planes [P, C, H, H] at the last of `sizes`."""
        return self.whole(self.planes(name)[-1])[0]

    def portrait(self, name: str) -> PortraitFeatures:
        """Features of a portrait, B = 1."""
        return self._features[name]


def training_names(
    fitted: FittedSet,
    views: MultiViewSet | None,
    txt_file: Path | None,
    start_idx: int = 0,
    end_idx: int | None = None,
) -> list[str]:
    """Objects to train on: the set's training identities, or the fitted set's without a set.

    Raises:
        UserError: when a held-out identity is asked for or nothing is left.
    """
    allowed = views.split("train") if views is not None else fitted.names
    if not allowed:
        where = views.root if views is not None else fitted.folder
        raise UserError(f"{where} has no training identities")
    if views is not None and txt_file is not None:
        listed = select_names(views.names, txt_file, start_idx, end_idx)
        held_out = [name for name in listed if name not in set(allowed)]
        if held_out:
            raise UserError(f"{txt_file} names held-out identities: {', '.join(held_out[:5])}")
        return listed
    return select_names(allowed, txt_file, start_idx, end_idx)


class DenoisingDataset(Dataset[DenoisingBatch]):
    """Denoising problems by position in an endless list (see diffusion.training.order).

    Args:
        pairs: triplanes and features; the last of its sizes is denoised.
        num_timesteps: T.
        condition_drop: share of problems whose portrait is withheld.
        seed: of the order, noise, timesteps and drops.
        stream: name of the random stream.
    """

    def __init__(
        self,
        pairs: PairedSet,
        num_timesteps: int,
        condition_drop: float,
        seed: int,
        stream: str,
    ) -> None:
        if not 0 <= condition_drop <= 1:
            raise UserError(f"condition_drop is {condition_drop}: it must lie in 0..1")
        self.pairs = pairs
        self.num_timesteps = num_timesteps
        self.condition_drop = condition_drop
        self.seed, self.stream = seed, stream
        self.order = ShuffledOrder(len(pairs), seed, stream, "order")

    def name_at(self, position: int) -> str:
        return self.pairs.names[self.order[position]]

    def __getitem__(self, position: int) -> DenoisingBatch:
        name = self.name_at(position)
        start = self.pairs.planes(name)[-1]
        random = generator(self.seed, self.stream, position)
        timestep = torch.randint(self.num_timesteps, (1,), generator=random)
        drop = torch.rand(1, generator=random) < self.condition_drop
        noise = torch.randn(start.shape, generator=random)
        return DenoisingBatch([name], start, noise, timestep, drop, self.pairs.portrait(name))


def describe_data(pairs: PairedSet) -> dict[str, Any]:
    """What a model was trained on, for the file beside its weights."""
    return {
        "decoder_hash": pairs.fitted.manifest["decoder_hash"],
        "vae_hash": pairs.features.manifest["vae_hash"],
        "image_size": pairs.features.image_size,
        "channels": pairs.fitted.shape[1],
        "plane_sizes": list(pairs.sizes),
        "subjects": len(pairs),
    }
