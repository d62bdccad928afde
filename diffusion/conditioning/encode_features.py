"""The stage that computes every portrait's features once and stores them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from captures.multiview import MultiViewSet, select_names
from diffusion.conditioning.feature_set import FeatureSet
from diffusion.conditioning.features import (
    PortraitEncoder,
    PortraitFeatures,
    portrait_tensor,
    vae_hash,
)
from diffusion.conditioning.portrait_window import portrait_window
from runtime.devices import select_device
from runtime.errors import UserError
from runtime.picture_files import name_pictures, read_picture
from runtime.progress import progress
from runtime.version import VERSION


@dataclass
class EncodeFeaturesConfig:
    """Stores the multi-scale VAE features of portraits."""

    output_dir: Path
    """Folder for features/<name>.safetensors and manifest.json; finished portraits are kept."""
    vae: str
    """AutoencoderKL: a folder (train-vae writes one) or a hub id such as stabilityai/sdxl-vae."""
    root: Path | None = None
    """Multi-view set whose portraits (frame 0) are encoded."""
    portraits: Path | None = None
    """Folder of square portrait pictures to encode instead; named by their file names."""
    convention: str | None = None
    """Camera convention of a set without dataset.json, e.g. rodinhd."""
    txt_file: Path | None = None
    """Text file with one name per line; all portraits without it."""
    start_idx: int = 0
    """First name of the list to encode."""
    end_idx: int | None = None
    """Name of the list to stop before; the end without it."""
    image_size: int = 256
    """Side in pixels the VAE sees."""
    batch_size: int = 4
    """Portraits encoded at once."""
    device: str = field(default="auto", metadata={"resumable": True})
    """Device: auto, cpu, cuda or cuda:N."""


def feature_manifest(encoder: PortraitEncoder, features: PortraitFeatures) -> dict[str, object]:
    """What all features of a folder have in common."""
    return {
        "vae_hash": vae_hash(encoder.vae),
        "image_size": encoder.image_size,
        "scaling_factor": encoder.scaling_factor,
        "latent_shape": list(features.latent.shape[1:]),
        "level_shapes": [list(level.shape[1:]) for level in features.levels],
        "dtype": "float16",
        "code_version": VERSION,
    }


def encode_features(config: EncodeFeaturesConfig) -> None:
    """Encodes the portraits that aren't done yet.

    Raises:
        UserError: on an unreadable portrait, VAE or folder; what is done stays.
    """
    if config.batch_size < 1:
        raise UserError(f"batch_size is {config.batch_size}: it must be at least 1")
    sources = _sources(config)
    encoder = PortraitEncoder(config.vae, config.image_size, select_device(config.device))
    blank = torch.ones(1, 3, config.image_size, config.image_size)
    manifest = feature_manifest(encoder, encoder.encode(blank)) | sources.describe_subjects()
    store = FeatureSet.create(config.output_dir, manifest)
    waiting = [name for name in sources.names if name not in store]
    done = len(sources.names) - len(waiting)
    with progress(
        total=len(sources.names), initial=done, desc="encode-features", unit="portrait"
    ) as bar:
        for start in range(0, len(waiting), config.batch_size):
            names = waiting[start : start + config.batch_size]
            images = [
                portrait_tensor(sources.read(name), config.image_size, sources.describe(name))
                for name in names
            ]
            features = encoder.encode(torch.stack(images))
            for index, name in enumerate(names):
                store.put(name, features[index])
                bar.update()
    print(f"{len(sources.names)} portraits in {store.folder} ({done} were there already)")


class _Sources:
    """Names of portraits and how to read them: a multi-view set or a folder of pictures."""

    def __init__(self, names: list[str], views: MultiViewSet | None, files: dict[str, Path]):
        self.names, self.views, self.files = names, views, files

    def describe_subjects(self) -> dict[str, object]:
        """What the manifest keeps of the subjects, for training."""
        if self.views is None:
            return {}
        described: dict[str, object] = {"portrait_window": portrait_window(self.views, self.names)}
        if self.views.identity_splits is not None:
            described["identities"] = self.views.identity_splits
        return described

    def read(self, name: str) -> np.ndarray:
        return (
            self.views.portrait(name) if self.views else read_picture(self.files[name], "portrait")
        )

    def describe(self, name: str) -> str:
        if self.views:
            return f"the portrait of {name} in {self.views.root}"
        return str(self.files[name])


def _sources(config: EncodeFeaturesConfig) -> _Sources:
    views, files = None, {}
    if config.root is not None and config.portraits is None:
        views = MultiViewSet(config.root, config.convention)
        names = views.names
    elif config.portraits is not None and config.root is None:
        files = _picture_files(config.portraits)
        names = sorted(files)
    else:
        raise UserError("give either root (a multi-view set) or portraits (a folder of pictures)")
    return _Sources(
        select_names(names, config.txt_file, config.start_idx, config.end_idx), views, files
    )


def _picture_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"there is no folder of portraits {folder}")
    return name_pictures([folder])
