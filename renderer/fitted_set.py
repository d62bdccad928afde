"""A folder of triplanes that share one decoder, fitted or generated.

::

    <folder>/manifest.json                   shape, dtype, range, box, plane order, decoder hash
    <folder>/decoder/                        the shared decoder (config.json + safetensors)
    <folder>/triplanes/<object>.safetensors  [P, C, H, W], one per subject: fp16, or 8 bits a value
                                             with a scale and an offset for each channel
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from renderer.decoder import TriplaneDecoder, decoder_hash
from renderer.triplane import (
    AXIS_ORDER,
    MOST_VALUES,
    PLANE_ORDER,
    load_triplane,
    parse_triplane,
    read_metadata,
    save_triplane,
)
from runtime.described import Described, Name, Size, read_described
from runtime.errors import UserError
from runtime.files import new_folder, write_json
from runtime.formats.models import load_model
from runtime.formats.shards import INDEX, Shards
from runtime.version import VERSION

FORMAT: Literal["triavatar-triplanes"] = "triavatar-triplanes"
FORMAT_VERSIONS = {"float16": 1, "uint8": 2}
"""Version by dtype: programs that know fp16 alone shall not take codes for values."""


_Low = Annotated[float, Field(ge=-1, le=-1)]
_High = Annotated[float, Field(ge=1, le=1)]


class Manifest(Described):
    """``manifest.json``."""

    format: Literal["triavatar-triplanes"]
    version: Literal[1, 2]
    axis_order: Literal["P C H W"]
    plane_order: list[Literal["xy", "xz", "yz"]]
    shape: Annotated[list[Size], Field(min_length=4, max_length=4)]
    range: tuple[_Low, _High] = (-1.0, 1.0)
    box: tuple[tuple[_Low, _Low, _Low], tuple[_High, _High, _High]] | None = None
    dtype: Literal["float16", "uint8"]
    decoder_hash: Name

    @field_validator("plane_order")
    @classmethod
    def _known_order(cls, value: list[str]) -> list[str]:
        if value != list(PLANE_ORDER):
            raise ValueError(f"be {list(PLANE_ORDER)}")
        return value


class FittedSet:
    """Reads and writes a triplane folder; refuses what does not match its manifest.

    Attributes:
        folder: where it lies.
        manifest: the content of ``manifest.json``.
        shards: archives that hold the triplanes (``triplanes pack``); None where each has a file.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        self.folder = folder
        self.manifest = manifest
        self.shards = Shards(folder) if (folder / INDEX).exists() else None

    @classmethod
    def create(
        cls,
        folder: Path | str,
        decoder: TriplaneDecoder,
        shape: tuple[int, int, int, int],
        dtype: str = "float16",
        identities: dict[str, list[str]] | None = None,
    ) -> FittedSet:
        """Make the folder, or open it again if decoder, shape and dtype are the same.

        Args:
            decoder: saved beside the triplanes.
            shape: of each triplane, (3, C, H, W).
            dtype: of its files, see :func:`renderer.triplane.save_triplane`.
            identities: subjects by split, as the multi-view set states them; kept in the manifest,
                so that what learns from the triplanes knows whom it may not see.

        Raises:
            UserError: if the folder already holds triplanes of another decoder, shape or dtype.
        """
        folder = Path(folder)
        known = cls.open(folder) if (folder / "manifest.json").exists() else None
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "version": FORMAT_VERSIONS[dtype],
            "axis_order": AXIS_ORDER,
            "shape": list(shape),
            "dtype": dtype,
            "range": [-1.0, 1.0],
            "box": [[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]],
            "plane_order": list(PLANE_ORDER),
            "decoder_hash": decoder_hash(decoder),
            "code_version": VERSION,
        }
        if known is not None:
            for key in ("shape", "decoder_hash", "dtype"):
                if known.manifest[key] != manifest[key]:
                    raise UserError(
                        f"{folder} already holds triplanes of another "
                        f"{key.replace('_', ' ')}; choose a new output folder"
                    )
            manifest = known.manifest
        else:
            try:
                with new_folder(folder / "decoder") as growing:
                    decoder.save_pretrained(growing)
            except OSError:
                if not (folder / "decoder").is_dir():
                    raise
                # Another process began the same set a moment ago.
        stated = manifest if identities is None else manifest | {"identities": identities}
        if known is None or stated != manifest:
            write_json(folder / "manifest.json", stated)
        return cls(folder, stated)

    @classmethod
    def open(cls, folder: Path | str) -> FittedSet:
        """Open an existing folder; :class:`UserError` if it is none or of another format."""
        folder = Path(folder)
        path = folder / "manifest.json"
        if not path.exists() and folder.name in ("decoder", "triplanes"):
            folder, path = folder.parent, folder.parent / "manifest.json"
        if not path.exists():
            raise UserError(
                f"{folder} is not a triplane folder (no manifest.json); give the output folder of "
                "fit-decoder, fit-triplanes, sample-base or sample-upsampler"
            )
        manifest = read_described(Manifest, path)
        if FORMAT_VERSIONS[manifest.dtype] != manifest.version:
            raise UserError(
                f"{path}: dtype {manifest.dtype} is none of version {manifest.version}'s"
            )
        p, c, h, w = manifest.shape
        if p != len(PLANE_ORDER) or h != w or p * c * h * w > MOST_VALUES:
            raise UserError(f"{path}: shape is {manifest.shape} but must be [3, C, H, H]")
        return cls(folder, manifest.model_dump(exclude_none=True))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(3, C, H, W) of every triplane."""
        p, c, h, w = self.manifest["shape"]
        return p, c, h, w

    @property
    def identities(self) -> dict[str, list[str]] | None:
        """Subjects by split ("train", "validation", "test"); None where the folder does not say."""
        return self.manifest.get("identities")

    @property
    def names(self) -> list[str]:
        """Subjects whose triplane is there, sorted."""
        if self.shards is not None:
            return self.shards.names
        return sorted(p.stem for p in (self.folder / "triplanes").glob("*.safetensors"))

    def path(self, name: str) -> Path:
        """File of one subject; of a packed set, its index."""
        if self.shards is not None:
            return self.folder / INDEX
        return self.folder / "triplanes" / f"{name}.safetensors"

    def __contains__(self, name: str) -> bool:
        if self.shards is not None:
            return name in self.shards
        return self.path(name).exists()

    def decoder(self) -> TriplaneDecoder:
        """The shared decoder, checked against the manifest's hash, frozen, in eval mode."""
        return load_decoder(self.folder / "decoder", self.manifest["decoder_hash"])

    def load(self, name: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """Triplane of one subject, [3, C, H, W] in [-1, 1].

        Args:
            dtype: of the result; fp16 is what files hold.

        Raises:
            UserError: if it is missing, damaged, of another shape or another decoder.
        """
        if self.shards is not None:
            path = self.folder / name
            planes, metadata = parse_triplane(self.shards.read(name), path, self.shape, dtype)
            self._check_decoder(metadata, path)
            return planes
        path = self.path(name)
        self._check_decoder(read_metadata(path), path)
        return load_triplane(path, self.shape, dtype)

    def _check_decoder(self, metadata: dict[str, str], path: Path) -> None:
        if metadata.get("decoder_hash") != self.manifest["decoder_hash"]:
            raise UserError(
                f"{path} was made for another decoder than {self.folder / 'decoder'}; fit or "
                "sample it again with this one"
            )

    def mean(self, without: str | None = None) -> Tensor:
        """Mean of the triplanes, [3, C, H, W], of all subjects but ``without``.

        Raises:
            UserError: there are none.
        """
        names = [name for name in self.names if name != without]
        if not names:
            raise UserError(f"{self.folder} holds no triplanes to start from; use --init random")
        return sum((self.load(name) for name in names), torch.zeros(self.shape)) / len(names)

    def put(self, name: str, planes: Tensor) -> None:
        """Write one triplane [3, C, H, W], clamped to [-1, 1], atomically."""
        if self.shards is not None:
            raise UserError(f"{self.folder} is packed: triplanes can't be added, pack it again")
        if tuple(planes.shape) != self.shape:
            raise ValueError(f"planes must be {self.shape}, got {tuple(planes.shape)}")
        metadata = {"decoder_hash": self.manifest["decoder_hash"]}
        save_triplane(self.path(name), planes, metadata, self.manifest["dtype"])


def load_decoder(folder: Path | str, expected_hash: str | None = None) -> TriplaneDecoder:
    """Load a decoder, frozen, in eval mode.

    Args:
        folder: of the decoder, or one that holds it as ``decoder/``: a triplane folder, a bundle.
        expected_hash: refuse any other than this one.

    Raises:
        UserError: if it is missing or damaged, or is not the one expected.
    """
    folder = Path(folder)
    if not (folder / "config.json").exists() and (folder / "decoder").is_dir():
        folder = folder / "decoder"
    cure = "give the decoder folder of a run of fit-decoder, or fit it again"
    decoder = load_model(TriplaneDecoder, folder, "decoder", cure)
    if expected_hash is not None and decoder_hash(decoder) != expected_hash:
        raise UserError(f"the decoder at {folder} is not the one the triplanes were made with")
    return decoder
