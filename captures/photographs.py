"""Portraits drawn as photographs are: how they lie beside a subject's views, and how to read them.

::

    <set>/<object>/portraits/portrait_000.png    RGBA, straight alpha, cut out with errors
    <set>/<object>/portraits/portrait_000.json   camera, light, expression; written last
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from captures.cameras import Cameras
from captures.rgba import read_rgba, resize_rgba
from runtime.described import Described, Matrix, Number, Size, read_described
from runtime.errors import UserError
from runtime.files import atomic_path, write_json

FOLDER = "portraits"
PICTURE_NAME = "portrait_{:03d}.png"
RECORD_NAME = "portrait_{:03d}.json"
_RECORD = re.compile(r"portrait_(\d{3,})\.json")


class PortraitCamera(Described):
    """A portrait's camera, in house convention; lengths of the picture in parts of its width."""

    size: Size
    focal: Number
    centre: tuple[Number, Number]
    c2w: Matrix


class PortraitRecord(Described):
    """``portrait_*.json``; docs/formats.md describes the rest of it."""

    camera: PortraitCamera


@dataclass(frozen=True)
class Portrait:
    """One portrait.

    Attributes:
        number: 0, 1, …
        image: RGBA, straight alpha, sRGB, uint8 [H, W, 4].
        camera: its one camera, in house convention.
        record: the content of its file: camera, light, expression, …
    """

    number: int
    image: np.ndarray
    camera: Cameras
    record: dict[str, Any]


def portrait_numbers(folder: Path) -> list[int]:
    """Numbers of the finished portraits of a subject's folder, ascending."""
    if not (folder / FOLDER).is_dir():
        return []
    matches = (_RECORD.fullmatch(path.name) for path in (folder / FOLDER).iterdir())
    return sorted(int(match[1]) for match in matches if match)


def read_portrait(folder: Path, number: int, size: int | None = None) -> Portrait:
    """A portrait of a subject's folder.

    Args:
        size: resize the picture to this many pixels along each side (area filter).

    Raises:
        UserError: names the file that is missing, unreadable or says something else.
    """
    path = folder / FOLDER / RECORD_NAME.format(number)
    record = read_described(PortraitRecord, path)
    picture = read_rgba(path.with_suffix(".png"))
    side = record.camera.size
    if picture.size != (side, side):
        raise UserError(
            f"{path} states {side}×{side} pixels but its picture has "
            f"{picture.size[0]}×{picture.size[1]}"
        )
    if size is not None and size != side:
        picture, side = resize_rgba(picture, size), size
    focal, (x, y) = (torch.tensor([record.camera.focal * side]), record.camera.centre)
    camera = Cameras(
        torch.tensor([record.camera.c2w], dtype=torch.float32),
        focal,
        focal.clone(),
        torch.tensor([x * side]),
        torch.tensor([y * side]),
        side,
        side,
    )
    return Portrait(number, np.asarray(picture), camera, record.model_dump())


def write_portrait(
    folder: Path, number: int, image: np.ndarray, camera: Cameras, record: dict[str, Any]
) -> None:
    """Write a portrait; its record last, which marks it finished.

    Args:
        folder: the subject's.
        image: RGBA uint8 [H, H, 4].
        camera: one, in house convention; square pixels.
        record: the rest of what is to be known about it.
    """
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / FOLDER / PICTURE_NAME.format(number)) as temporary:
        Image.fromarray(image, "RGBA").save(temporary, format="PNG")
    side = camera.width
    described = {
        "size": side,
        "focal": round(float(camera.fx[0]) / side, 6),
        "centre": [round(float(c[0]) / side, 6) for c in (camera.cx, camera.cy)],
        "c2w": camera.c2w[0].double().numpy().round(6).tolist(),
        **record.get("camera", {}),
    }
    write_json(folder / FOLDER / RECORD_NAME.format(number), record | {"camera": described})
