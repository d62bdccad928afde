"""A folder of portrait features: `<folder>/features/<name>.safetensors` and `manifest.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from diffusion.conditioning.features import N_LEVELS, PortraitFeatures
from runtime.described import Described, Name, Number, Size, read_described
from runtime.errors import UserError
from runtime.files import write_json
from runtime.formats.tensor_files import load_metadata

FORMAT = "triavatar-portrait-features"
VERSION = 1
OF_THE_SUBJECTS = ("identities", "portrait_window")
"""What a manifest says of the portraits, which may be more by the next time."""


def feature_shapes(manifest: dict[str, Any]) -> dict[str, Any]:
    """Channels and sizes of latent and levels, as the models' constructors name them."""
    latent, levels = manifest["latent_shape"], manifest["level_shapes"]
    return {
        "latent_channels": int(latent[0]),
        "latent_size": int(latent[-1]),
        "feature_channels": tuple(int(shape[0]) for shape in levels),
        "feature_sizes": tuple(int(shape[-1]) for shape in levels),
    }


Shape = Annotated[list[Size], Field(min_length=3, max_length=3)]


class FeatureManifest(Described):
    """``manifest.json``."""

    format: Literal["triavatar-portrait-features"]
    version: Literal[1]
    vae_hash: Name
    image_size: Size
    scaling_factor: Annotated[Number, Field(gt=0)]
    latent_shape: Shape
    level_shapes: Annotated[list[Shape], Field(min_length=N_LEVELS, max_length=N_LEVELS)]


class FeatureSet:
    """Portrait features by object name, all from one VAE at one image size.

    Args:
        folder: holds manifest.json and features/.
        manifest: what the features have in common: vae_hash, image_size, latent_shape,
            level_shapes, dtype, code_version; where they come from a multi-view set also
            identities (its subjects by split) and portrait_window (what a portrait shows of the
            plane z = 0: left, bottom, right, top).
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self.manifest = manifest

    @staticmethod
    def open(folder: Path) -> FeatureSet:
        """Opens what `triavatar encode-features` wrote.

        Raises:
            UserError: when the folder holds no features or features of another format.
        """
        folder = Path(folder)
        path = folder / "manifest.json"
        if not path.exists():
            raise UserError(
                f"{folder} holds no portrait features (no manifest.json): make them with "
                f"`triavatar encode-features`"
            )
        return FeatureSet(folder, read_described(FeatureManifest, path).model_dump())

    @staticmethod
    def create(folder: Path, manifest: dict[str, Any]) -> FeatureSet:
        """Starts a feature folder, or goes on with one made in the same way.

        Raises:
            UserError: when the folder already holds features of another VAE or image size.
        """
        folder = Path(folder)
        manifest = {"format": FORMAT, "version": VERSION, **manifest}
        if (folder / "manifest.json").exists():
            existing = FeatureSet.open(folder)
            for key in FeatureManifest.model_fields:
                if existing.manifest[key] != manifest[key]:
                    raise UserError(
                        f"{folder} already holds features with another {key} "
                        f"({existing.manifest[key]}, now {manifest[key]}): choose another "
                        f"output_dir or delete that folder"
                    )
            fresh = {key: manifest[key] for key in OF_THE_SUBJECTS if key in manifest}
            if fresh != {key: existing.manifest.get(key) for key in fresh}:
                existing.manifest |= fresh
                write_json(folder / "manifest.json", existing.manifest)
            return existing
        write_json(folder / "manifest.json", manifest)
        return FeatureSet(folder, manifest)

    @property
    def image_size(self) -> int:
        """Side in pixels of the encoded portraits."""
        return int(self.manifest["image_size"])

    def shapes(self) -> dict[str, Any]:
        """Channels and sizes of latent and levels, as the models' constructors name them."""
        return feature_shapes(self.manifest)

    @property
    def identities(self) -> dict[str, list[str]] | None:
        """Subjects by split ("train", "validation", "test"); None where the folder does not say."""
        return self.manifest.get("identities")

    @property
    def portrait_window(self) -> tuple[float, ...] | None:
        """What a portrait shows of the plane z = 0: left, bottom, right, top; None if unknown."""
        window = self.manifest.get("portrait_window")
        return None if window is None else tuple(window)

    @property
    def names(self) -> list[str]:
        """Names of the finished portraits, sorted."""
        return sorted(path.stem for path in (self.folder / "features").glob("*.safetensors"))

    def path(self, name: str) -> Path:
        return self.folder / "features" / f"{name}.safetensors"

    def __contains__(self, name: str) -> bool:
        return self.path(name).exists()

    def made_of(self, name: str) -> str | None:
        """Hash of the picture whose features these are; None where earlier versions kept none."""
        return load_metadata(self.path(name)).get("picture_hash")

    def put(self, name: str, features: PortraitFeatures, picture_hash: str = "") -> None:
        """Writes one portrait's features (B = 1) atomically.

        Args:
            picture_hash: of the picture, to notice when its file changes.
        """
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        metadata = {"vae_hash": str(self.manifest["vae_hash"])}
        if picture_hash:
            metadata["picture_hash"] = picture_hash
        features.save(self.path(name), metadata)

    def load(self, name: str) -> PortraitFeatures:
        """Reads one portrait's features, float32, B = 1.

        Raises:
            UserError: when they're missing, damaged or of another shape than the manifest says.
        """
        if name not in self:
            raise UserError(
                f"{self.folder} has no features of {name}: run `triavatar encode-features` for it"
            )
        shapes = [self.manifest["latent_shape"], *self.manifest["level_shapes"]]
        return PortraitFeatures.load(self.path(name), shapes)
