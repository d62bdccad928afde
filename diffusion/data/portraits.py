"""Portraits of the training: features stored before, or pictures encoded on the go.

Letters: B batch, S image size in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captures.multiview import MultiViewSet
from captures.photographs import FOLDER, PICTURE_NAME, portrait_numbers
from diffusion.conditioning.encode_features import feature_manifest
from diffusion.conditioning.feature_set import FeatureSet
from diffusion.conditioning.features import PortraitEncoder, PortraitFeatures, portrait_tensor
from diffusion.conditioning.portrait_window import portrait_window
from diffusion.data.cache import Cache, feature_bytes
from diffusion.data.prepared import PreparedRows
from runtime.errors import UserError
from runtime.seeds import seed_of

Portrait = PortraitFeatures | Tensor
"""Features of B portraits, or the pictures themselves, uint8 [B, 3, S, S]."""


def join_portraits(items: Sequence[Portrait]) -> Portrait:
    """Joins portraits along B."""
    features = [item for item in items if isinstance(item, PortraitFeatures)]
    if len(features) == len(items):
        return PortraitFeatures.stack(features)
    return torch.cat([item for item in items if isinstance(item, Tensor)])


class StoredPortraits:
    """Features of a folder that encode-features wrote; one portrait a person.

    Attributes:
        manifest: what the features have in common, as in a feature set.
    """

    def __init__(self, store: FeatureSet, cache_gib: float) -> None:
        self.store, self.manifest = store, store.manifest
        self._cache: Cache[PortraitFeatures] = Cache(self._load, feature_bytes, cache_gib * 2**30)

    def _load(self, name: str) -> PortraitFeatures:
        # As on disk until they are on the device: half of the memory and of the copies.
        return self.store.load(name).to(dtype=torch.float16)

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return which of the names have no portrait."""
        there = set(self.store.names)
        return [name for name in names if name not in there]

    def draw(
        self, name: str, random: torch.Generator | None = None, mirrored: bool = False
    ) -> PortraitFeatures:
        """A person's portrait, B = 1."""
        if mirrored:
            raise UserError(
                "mirror needs the portraits' pictures, stored features can't be mirrored: give "
                "--vae and --root in place of --features"
            )
        return self._cache[name]

    def features(self, portraits: Portrait) -> PortraitFeatures:
        """Features of B portraits as they were drawn."""
        assert isinstance(portraits, PortraitFeatures)
        return portraits.to(dtype=torch.float32)


class PicturePortraits:
    """Pictures of a multi-view set, encoded by a frozen VAE where the model trains.

    A picture is a hundredth of its features, and it may be mirrored.

    Args:
        views: the set.
        encoder: on the training device.
        prepared: folder for the pictures at the encoder's size, made once and shared by all
            processes.
        photographs: how often a portrait drawn at random is one of the person's photographs
            (:mod:`captures.photographs`) in place of the frontal one.

    Raises:
        UserError: photographs are asked for and nobody has any.
    """

    def __init__(
        self,
        views: MultiViewSet,
        encoder: PortraitEncoder,
        prepared: Path,
        photographs: float = 0.0,
    ) -> None:
        self.views, self.encoder, self.photographs = views, encoder, photographs
        size = encoder.image_size
        self.manifest: dict[str, Any] = feature_manifest(
            encoder, encoder.encode(torch.ones(1, 3, size, size))
        )
        self.manifest["portrait_window"] = portrait_window(views, views.names)
        root = seed_of(str(views.root.resolve()))
        shape = (1, 3, size, size)
        self._rows = PreparedRows(
            prepared / f"portraits_{size}_{root:016x}.rows",
            views.names,
            shape,
            torch.uint8,
            lambda name: self._shrunk(self.views.portrait(name), f"portrait of {name}"),
            views.portrait_path,
        )
        self._numbers: dict[str, list[int]] = {}
        if photographs:
            found = {name: portrait_numbers(views.root / name) for name in views.names}
            self._numbers = {name: numbers for name, numbers in found.items() if numbers}
            if not self._numbers:
                raise UserError(
                    f"{views.root} holds no portraits drawn as photographs are: draw them with "
                    f"`triavatar studio render --portraits 4`, or leave out --photographs"
                )
        self._photographs = PreparedRows(
            prepared / f"photographs_{size}_{root:016x}.rows",
            [f"{name}/{number}" for name, all_of in self._numbers.items() for number in all_of],
            shape,
            torch.uint8,
            self._photograph,
            self._photograph_path,
        )

    def _photograph_path(self, row: str) -> Path:
        name, number = row.rsplit("/", 1)
        return self.views.root / name / FOLDER / PICTURE_NAME.format(int(number))

    def _photograph(self, row: str) -> Tensor:
        name, number = row.rsplit("/", 1)
        (found,) = self.views.portraits(name, [int(number)])
        return self._shrunk(found.image, f"photograph {number} of {name}")

    def _shrunk(self, picture: np.ndarray, what: str) -> Tensor:
        where = f"the {what} in {self.views.root}"
        pixels = portrait_tensor(picture, self.encoder.image_size, where)
        return (pixels * 255 + 0.5).to(torch.uint8)[None]

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return which of the names have no portrait."""
        there = set(self.views.names)
        return [name for name in names if name not in there]

    def draw(
        self, name: str, random: torch.Generator | None = None, mirrored: bool = False
    ) -> Tensor:
        """A person's portrait, uint8 [1, 3, S, S]; the frontal one without a generator."""
        numbers = self._numbers.get(name)
        if numbers and random is not None and _chance(random) < self.photographs:
            chosen = numbers[int(_chance(random) * len(numbers))]
            picture = self._photographs[f"{name}/{chosen}"]
        else:
            picture = self._rows[name]
        return picture.flip(-1) if mirrored else picture

    def features(self, portraits: Portrait) -> PortraitFeatures:
        """Features of B pictures, rounded as a file keeps them."""
        assert isinstance(portraits, Tensor)
        found = self.encoder.encode(portraits.to(self.encoder.device).float() / 255)
        return found.to(dtype=torch.float16).to(dtype=torch.float32)


def _chance(random: torch.Generator) -> float:
    """Return a number in 0..1, below 1."""
    return float(torch.rand((), generator=random))


def open_portraits(
    features: Path | None,
    vae: str | None,
    image_size: int,
    views: MultiViewSet | None,
    cache_gib: float,
    prepared: Path,
    photographs: float = 0.0,
) -> StoredPortraits | PicturePortraits:
    """Open stored features, or else the pictures of a set with the VAE that encodes them.

    Args:
        prepared, photographs: see `PicturePortraits`.
    """
    if features is not None:
        return StoredPortraits(FeatureSet.open(features), cache_gib)
    assert vae is not None and views is not None
    return PicturePortraits(views, PortraitEncoder(vae, image_size), prepared, photographs)
