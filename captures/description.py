"""``dataset.json``: what a multi-view set states of its conventions, splits and subjects.

data/README.md describes the file; :class:`captures.multiview.MultiViewSet` reads sets by it.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from captures.camera_files import CameraFormat
from captures.conventions import Convention
from captures.rgba import PictureFormat
from runtime.errors import UserError
from runtime.files import read_json, write_json

FORMAT = "triavatar-multiview"
VERSION = 1
# Version 2 adds `cameras`, `pictures` and `exclude`, which older readers would not honour.
VERSIONS = (1, 2)


def read_description(
    path: Path,
) -> tuple[dict[str, Any], Convention, CameraFormat, PictureFormat]:
    """``dataset.json``: its content and the conventions it states.

    Raises:
        UserError: the file is damaged, of another format, or states what cannot be.
    """
    found = read_json(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UserError(f"{path} is not a {FORMAT} description")
    if found.get("version") not in VERSIONS:
        raise UserError(f"{path} is not a {FORMAT} description of version 1 or 2")
    world = found.get("world")
    if not isinstance(world, dict) or not {"world_from_file", "camera_axes"} <= world.keys():
        raise UserError(f"{path}: 'world' must state world_from_file and camera_axes")
    try:
        matrix = np.asarray(world["world_from_file"], dtype=np.float64)
    except (ValueError, TypeError):
        raise UserError(f"{path}: world.world_from_file is not a 4×4 matrix") from None
    return (
        found,
        Convention(matrix, world["camera_axes"]),
        _read_part(CameraFormat, found, "cameras", path),
        _read_part(PictureFormat, found, "pictures", path),
    )


def _read_part(kind: Any, description: dict[str, Any], key: str, path: Path) -> Any:
    """An optional part of ``dataset.json`` as a dataclass."""
    part = description.get(key, {})
    if not isinstance(part, dict):
        raise UserError(f"{path}: '{key}' must be a table of settings")
    unknown = set(part) - {field.name for field in fields(kind)}
    if unknown:
        raise UserError(f"{path}: '{key}' has no setting {', '.join(sorted(unknown))}")
    try:
        return kind(**part)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


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
    """Write ``dataset.json``: see data/README.md for its meaning."""
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
