"""The stage that computes every portrait's features once and stores them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from captures.multiview import MultiViewSet
from captures.selection import SubjectSelection
from diffusion.conditioning.feature_set import FeatureSet
from diffusion.conditioning.features import (
    PortraitEncoder,
    PortraitFeatures,
    portrait_tensor,
    vae_hash,
)
from diffusion.conditioning.portrait_window import portrait_window
from runtime.config import check_settings, own_first, setting
from runtime.devices import select_device
from runtime.errors import UserError
from runtime.files import file_hash
from runtime.picture_files import name_pictures, read_picture
from runtime.progress import counted
from runtime.spread import Job, SpreadSettings, Turns, spread
from runtime.version import VERSION


@own_first
@dataclass(kw_only=True)
class EncodeFeaturesConfig(SpreadSettings, SubjectSelection):
    """Stores the multi-scale VAE features of portraits."""

    output_dir: Path
    """Folder for features/<name>.safetensors and manifest.json; finished portraits are kept."""
    vae: str
    """AutoencoderKL: a folder (train-vae writes one) or a hub id such as stabilityai/sdxl-vae."""
    root: Path | None = None
    """Multi-view set whose portraits (frame 0) are encoded."""
    portraits: Path | None = None
    """Folder of square portrait pictures to encode instead; named by their file names."""
    image_size: int = setting(256, at_least=8, at_most=8192)
    """Side in pixels the VAE sees."""
    batch_size: int = setting(4, at_least=1, at_most=2**16)
    """Portraits encoded at once."""
    device: str = setting("auto", resumable=True)
    """Device: auto, cpu, cuda or cuda:N."""

    def check(self) -> None:
        """Refuse none or two sources of portraits (UserError)."""
        super().check()
        if (self.root is None) == (self.portraits is None):
            raise UserError(
                "give either root (a multi-view set) or portraits (a folder of pictures)"
            )


def feature_manifest(encoder: PortraitEncoder, features: PortraitFeatures) -> dict[str, object]:
    """Return what all features of a folder have in common."""
    return {
        "vae_hash": vae_hash(encoder.vae),
        "image_size": encoder.image_size,
        "scaling_factor": encoder.scaling_factor,
        "latent_shape": list(features.latent.shape[1:]),
        "level_shapes": [list(level.shape[1:]) for level in features.levels],
        "dtype": "float16",
        "code_version": VERSION,
    }


class FeatureEncoder:
    """Encodes portraits and stores their features.

    Raises:
        UserError: on an unreadable set, VAE or folder.
    """

    def __init__(self, config: EncodeFeaturesConfig):
        self.config = config
        self.sources = _sources(config)
        self.encoder = PortraitEncoder(config.vae, config.image_size, select_device(config.device))
        blank = torch.ones(1, 3, config.image_size, config.image_size)
        manifest = feature_manifest(self.encoder, self.encoder.encode(blank))
        manifest |= self.sources.describe_subjects()
        self.store = FeatureSet.create(config.output_dir, manifest)

    def __call__(self, names: list[str], turns: Turns) -> None:
        """Encode and store portraits."""
        images = [
            portrait_tensor(
                self.sources.read(name), self.config.image_size, self.sources.describe(name)
            )
            for name in names
        ]
        features = self.encoder.encode(torch.stack(images))
        for index, name in enumerate(names):
            self.store.put(name, features[index], self.sources.hash(name))

    def finished(self, name: str) -> bool:
        """Whether a portrait's features are there, and of the picture that it has now."""
        if name not in self.store:
            return False
        known = self.store.made_of(name)
        return known is None or known == self.sources.hash(name)


def encode_features(config: EncodeFeaturesConfig) -> None:
    """Encode the portraits that aren't done yet.

    Raises:
        UserError: on an unreadable set, VAE or folder; what is done stays.
        PartialFailure: some portraits are unreadable; the rest are done.
    """
    check_settings(config)
    encoder = FeatureEncoder(config if config.here else replace(config, device="cpu"))
    job = Job(
        "encode-features",
        FeatureEncoder,
        config,
        encoder.finished,
        config.output_dir / ".turns",
        batch=config.batch_size,
        uses_gpu=config.device != "cpu",
        unit="portrait",
    )
    report = spread(job, encoder.sources.names, config, begun=encoder)
    done = counted(len(report.names) - len(report.failures), "portrait")
    print(f"{done} in {encoder.store.folder}")
    report.raise_failures()


class _Sources:
    """Names of portraits and how to read them: a multi-view set or a folder of pictures."""

    def __init__(self, names: list[str], views: MultiViewSet | None, files: dict[str, Path]):
        self.names, self.views, self.files = names, views, files

    def describe_subjects(self) -> dict[str, object]:
        """Return what the manifest keeps of the subjects, for training."""
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

    def hash(self, name: str) -> str:
        """Of the picture's file, and of how it is read."""
        if self.views is None:
            return file_hash(self.files[name])
        path = self.views.portrait_path(name)
        return f"{file_hash(path)} {self.views.pictures}" if path.is_file() else ""

    def describe(self, name: str) -> str:
        if self.views:
            return f"the portrait of {name} in {self.views.root}"
        return str(self.files[name])


def _sources(config: EncodeFeaturesConfig) -> _Sources:
    views, files = None, {}
    if config.root is not None:
        views = MultiViewSet(config.root, config.convention)
        names = views.names
    else:
        assert config.portraits is not None
        files = _picture_files(config.portraits)
        names = sorted(files)
    return _Sources(config.chosen(names), views, files)


def _picture_files(folder: Path) -> dict[str, Path]:
    if not folder.exists():
        raise UserError(f"there are no portraits at {folder}")
    return name_pictures([folder])
