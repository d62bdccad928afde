"""Cameras as they are written in ``metadata_*.json``, and how to read them.

What a file means by its numbers differs between exporters; :class:`CameraFormat` states it once for
a set (``cameras`` in ``dataset.json``). World and camera axes are :mod:`captures.conventions`'.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field

from runtime.described import Described, Number, Row, read_described
from runtime.errors import UserError

Pixels = Annotated[float, Field(ge=1, le=2**16, multiple_of=1)]

# Kind of matrix → (world-to-camera, written column by column).
MATRICES = {
    "c2w": (False, False),
    "w2c": (True, False),
    "c2w_transposed": (False, True),
    "w2c_transposed": (True, True),
}
FOCAL_UNITS = {
    "sensor": "the unit of sensor_width",
    "pixels": "pixels of the stated resolution",
    "widths": "picture widths",
    "half_widths": "half picture widths",
    "degrees": "a horizontal field of view in degrees",
    "radians": "a horizontal field of view in radians",
}


@dataclass(frozen=True)
class StoredCamera:
    """The numbers of one metadata file.

    Attributes:
        width, height: stated resolution in pixels.
        focal_length: in a unit the file does not state.
        sensor_width: usually in millimetres.
        transformation: [4, 4], float64.
    """

    width: int
    height: int
    focal_length: float
    sensor_width: float
    transformation: np.ndarray


@dataclass(frozen=True)
class CameraFormat:
    """The conventions of a set's metadata files.

    Attributes:
        matrix: "c2w" or "w2c", with "_transposed" when written column by column.
        focal_unit: one of :data:`FOCAL_UNITS`.
        focal_factor: the true focal length over the stated one.
        resolution: "stated" as in the file, or "picture": the picture was resized afterwards.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")

    matrix: str = "c2w"
    focal_unit: str = "sensor"
    focal_factor: float = 1.0
    resolution: str = "stated"

    def __post_init__(self) -> None:
        known = (("matrix", MATRICES), ("focal_unit", FOCAL_UNITS))
        for key, choices in (*known, ("resolution", ("stated", "picture"))):
            if getattr(self, key) not in choices:
                raise UserError(
                    f"cameras.{key} is {getattr(self, key)!r}: choose one of {', '.join(choices)}"
                )
        factor = self.focal_factor
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < 1e9:
            raise UserError(f"cameras.focal_factor is {factor!r}; it must be a positive number")

    def focal_widths(self, stored: StoredCamera) -> float:
        """Focal length in picture widths; NaN where the stated number has no meaning."""
        value = stored.focal_length
        if not math.isfinite(value) or value <= 0:
            return math.nan
        if self.focal_unit in ("degrees", "radians"):
            angle = math.radians(value) if self.focal_unit == "degrees" else value
            return self.focal_factor * 0.5 / math.tan(angle / 2) if angle < math.pi else math.nan
        widths = {
            "sensor": stored.sensor_width,
            "pixels": stored.width,
            "widths": 1.0,
            "half_widths": 2.0,
        }[self.focal_unit]
        return self.focal_factor * value / widths if widths > 0 else math.nan

    def c2w(self, transformation: np.ndarray) -> np.ndarray:
        """Camera-to-world [..., 4, 4] with the file's axes, freed from a uniform scale.

        Raises:
            numpy.linalg.LinAlgError: a world-to-camera matrix has no inverse.
        """
        inverse, transposed = MATRICES[self.matrix]
        matrix = np.swapaxes(transformation, -1, -2) if transposed else transformation
        matrix = np.array(np.linalg.inv(matrix) if inverse else matrix)
        scale = np.abs(np.linalg.det(matrix[..., :3, :3])) ** (1 / 3)
        matrix[..., :3, :3] /= np.where(scale > 0, scale, 1.0)[..., None, None]
        return matrix


class _Camera(Described):
    resolution: tuple[Pixels, Pixels]
    focal_length: Number
    sensor_width: Number
    transformation: Annotated[list[Row], Field(min_length=3, max_length=4)]


class CameraFile(Described):
    """``metadata_*.json``; of several cameras the first counts."""

    cameras: Annotated[list[_Camera], Field(min_length=1)]


def read_camera(path: Path) -> StoredCamera:
    """Read the camera of a metadata file.

    Raises:
        UserError: names the file, the key, what is there and what is expected.
    """
    stored = read_described(CameraFile, path, most=2**20).cameras[0]
    matrix = np.array(stored.transformation)
    if len(matrix) == 3:
        matrix = np.concatenate([matrix, [[0.0, 0.0, 0.0, 1.0]]])
    width, height = (int(side) for side in stored.resolution)
    return StoredCamera(width, height, stored.focal_length, stored.sensor_width, matrix)
