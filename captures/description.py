"""``dataset.json``: what a multi-view set states of its conventions, splits and subjects.

docs/formats.md describes the file; :class:`captures.multiview.MultiViewSet` reads sets by it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator

from captures.camera_files import CameraFormat
from captures.conventions import Convention
from captures.rgba import PictureFormat
from runtime.described import Count, Described, Matrix, Name, read_described
from runtime.errors import UserError
from runtime.files import write_json

FORMAT = "triavatar-multiview"
VERSION = 1
# Version 2 adds `cameras`, `pictures` and `exclude`, which older readers would not honour.
VERSIONS = (1, 2)


class _World(Described):
    world_from_file: Matrix
    camera_axes: Name


class _Splits(Described):
    identities: dict[str, list[str]] | None = None
    views: dict[str, list[Count]] | None = None


def _exclusion(value: Any) -> Any:
    frames = isinstance(value, list) and all(type(frame) is int for frame in value)
    if value != "all" and not frames:
        raise ValueError('be "all" or a list of frame numbers')
    return value


class _Object(Described):
    attributes: dict[str, Any] = {}
    exclude: Annotated[Any, AfterValidator(_exclusion)] = []


class Description(Described):
    """``dataset.json``."""

    format: Literal["triavatar-multiview"]
    version: Literal[1, 2]
    world: _World
    cameras: CameraFormat = CameraFormat()
    pictures: PictureFormat = PictureFormat()
    splits: _Splits = _Splits()
    objects: dict[str, _Object] = {}


def read_description(
    path: Path,
) -> tuple[dict[str, Any], Convention, CameraFormat, PictureFormat]:
    """``dataset.json``: its content and the conventions it states.

    Raises:
        UserError: the file is damaged, of another format, or states what cannot be.
    """
    try:
        stated = read_described(Description, path, most=2**29)
        world = stated.world
        convention = Convention(np.array(world.world_from_file), world.camera_axes)
    except UserError as error:
        sentence = str(error)
        raise UserError(sentence if str(path) in sentence else f"{path}: {sentence}") from None
    return stated.model_dump(exclude_none=True), convention, stated.cameras, stated.pictures


def write_description(
    root: Path,
    convention: Convention,
    *,
    identities: dict[str, list[str]],
    views: dict[str, list[int]],
    objects: dict[str, Any],
    provenance: dict[str, Any],
    license: str,
) -> None:
    """Write ``dataset.json``: see docs/formats.md for its meaning."""
    write_json(
        root / "dataset.json",
        {
            "format": FORMAT,
            "version": VERSION,
            "world": {
                "camera_axes": convention.camera_axes,
                "world_from_file": convention.world_from_file.tolist(),
            },
            "splits": {"identities": identities, "views": views},
            "objects": objects,
            "provenance": provenance,
            "license": license,
        },
    )
