"""Portraits of the training: features stored before, or pictures encoded on the go.

Letters: B batch, S image size in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captures.multiview import MultiViewSet
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

    def draw(self, name: str, random: torch.Generator, mirrored: bool = False) -> PortraitFeatures:
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
    """

    def __init__(self, views: MultiViewSet, encoder: PortraitEncoder, prepared: Path) -> None:
        self.views, self.encoder = views, encoder
        size = encoder.image_size
        self.manifest: dict[str, Any] = feature_manifest(
            encoder, encoder.encode(torch.ones(1, 3, size, size))
        )
        self.manifest["portrait_window"] = portrait_window(views, views.names)
        self._rows = PreparedRows(
            prepared / f"portraits_{size}_{seed_of(str(views.root.resolve())):016x}.rows",
            views.names,
            (1, 3, size, size),
            torch.uint8,
            self._load,
            views.portrait_path,
        )

    def _load(self, name: str) -> Tensor:
        where = f"the portrait of {name} in {self.views.root}"
        pixels = portrait_tensor(self.views.portrait(name), self.encoder.image_size, where)
        return (pixels * 255 + 0.5).to(torch.uint8)[None]

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return which of the names have no portrait."""
        there = set(self.views.names)
        return [name for name in names if name not in there]

    def draw(self, name: str, random: torch.Generator, mirrored: bool = False) -> Tensor:
        """A person's portrait, uint8 [1, 3, S, S]."""
        picture = self._rows[name]
        return picture.flip(-1) if mirrored else picture

    def features(self, portraits: Portrait) -> PortraitFeatures:
        """Features of B pictures, rounded as a file keeps them."""
        assert isinstance(portraits, Tensor)
        found = self.encoder.encode(portraits.to(self.encoder.device).float() / 255)
        return found.to(dtype=torch.float16).to(dtype=torch.float32)


def open_portraits(
    features: Path | None,
    vae: str | None,
    image_size: int,
    views: MultiViewSet | None,
    cache_gib: float,
    prepared: Path,
) -> StoredPortraits | PicturePortraits:
    """Open stored features, or else the pictures of a set with the VAE that encodes them.

    Args:
        prepared: folder for pictures at the VAE's size, see `PicturePortraits`.
    """
    if features is not None:
        return StoredPortraits(FeatureSet.open(features), cache_gib)
    assert vae is not None and views is not None
    return PicturePortraits(views, PortraitEncoder(vae, image_size), prepared)
