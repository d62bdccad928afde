"""Reading COLMAP's sparse models, text and binary.

Formats: COLMAP's documentation, "Output Format". Rotations are world to camera, OpenCV axes; the
centre of the top left pixel is (0.5, 0.5), as in the house.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.errors import UserError
from runtime.files import check_file

# Model → (number of parameters, places of fx, fy, cx, cy, places of the distortion).
_MODELS = {
    "SIMPLE_PINHOLE": (3, (0, 0, 1, 2), ()),
    "PINHOLE": (4, (0, 1, 2, 3), ()),
    "SIMPLE_RADIAL": (4, (0, 0, 1, 2), (3,)),
    "RADIAL": (5, (0, 0, 1, 2), (3, 4)),
    "OPENCV": (8, (0, 1, 2, 3), (4, 5, 6, 7)),
}
_MODEL_IDS = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")
_MOST_BYTES = 2**28  # of a file; its text takes several times that in memory
NEGLIGIBLE = 0.5  # pixels a lens may displace the picture's corners


@dataclass(frozen=True)
class ColmapCamera:
    """Width and height in pixels; fx, fy, cx, cy in pixels; distortion (k1, k2, p1, p2)."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()

    def displacement(self) -> float:
        """How far, in pixels, the lens moves the picture's corners and edge middles at most."""
        k1, k2, p1, p2 = (*self.distortion, *(0.0,) * (4 - len(self.distortion)))
        x = (np.array([0, 0.5, 1])[:, None] * self.width - self.cx) / self.fx
        y = (np.array([0, 0.5, 1])[None] * self.height - self.cy) / self.fy
        r2 = x * x + y * y
        radial = k1 * r2 + k2 * r2 * r2
        dx = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        dy = y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y)
        return float(np.hypot(dx * self.fx, dy * self.fy).max())


@dataclass(frozen=True)
class ColmapImage:
    """A registered picture: its name, its camera's number and pose (c2w [4, 4], OpenCV axes)."""

    name: str
    camera: int
    c2w: np.ndarray


@dataclass(frozen=True)
class ColmapModel:
    """Cameras by number, images sorted by name, sparse points [K, 3]."""

    cameras: dict[int, ColmapCamera]
    images: list[ColmapImage]
    points: np.ndarray


def model_folder(folder: Path) -> Path | None:
    """Return where below `folder` its model lies: sparse/0, sparse, or itself; None if nowhere."""
    for place in (folder / "sparse" / "0", folder / "sparse", folder):
        if any((place / f"cameras{suffix}").exists() for suffix in (".bin", ".txt")):
            return place
    return None


def read_model(folder: Path) -> ColmapModel:
    """The model in `folder`; binary files win over text ones, as COLMAP does it.

    Raises:
        UserError: missing, damaged or of a camera model that is not a (nearly) ideal pinhole.
    """
    binary = (folder / "cameras.bin").exists()
    suffix = ".bin" if binary else ".txt"
    readers = (
        (_cameras_binary, _images_binary, _points_binary)
        if binary
        else (_cameras_text, _images_text, _points_text)
    )
    contents = []
    for name, reader in zip(("cameras", "images", "points3D"), readers, strict=True):
        path = folder / f"{name}{suffix}"
        if name == "points3D" and not path.exists():
            contents.append(np.zeros((0, 3)))
            continue
        check_file(path, _MOST_BYTES)
        try:
            contents.append(reader(path))
        except (struct.error, ValueError, IndexError, KeyError, OverflowError):
            raise UserError(
                f"{path} is damaged or not COLMAP's format; run COLMAP's model_converter on it"
            ) from None
    cameras, images, points = contents
    for image in images:
        if image.camera not in cameras:
            raise UserError(f"{folder}: image {image.name} names camera {image.camera}, not there")
        if not (np.abs(image.c2w) < 1e9).all():
            raise UserError(f"{folder}: the pose of {image.name} is not finite")
    if not (np.abs(points) < 1e9).all():
        raise UserError(f"{folder}: a sparse point is not finite")
    for number, camera in cameras.items():
        if not camera.displacement() <= NEGLIGIBLE:
            raise UserError(
                f"{folder}: the lens of camera {number} distorts by {camera.displacement():.1f} "
                "pixels; run colmap image_undistorter and import what it writes"
            )
    if not images:
        raise UserError(f"{folder} has no registered images")
    return ColmapModel(cameras, sorted(images, key=lambda image: image.name), points)


def _camera(model: str, width: int, height: int, values: list[float]) -> ColmapCamera:
    if model not in _MODELS:
        raise UserError(
            f"COLMAP camera model {model} is no pinhole; run colmap image_undistorter and import "
            "what it writes"
        )
    count, pinhole, distortion = _MODELS[model]
    if len(values) != count or not 1 <= min(width, height) <= max(width, height) <= 2**16:
        raise ValueError(f"a {model} camera has {count} parameters and a size")
    fx, fy, cx, cy = (values[i] for i in pinhole)
    # A principal point far off or a needle's eye would make pictures of any size.
    if not (0.02 * width < min(fx, fy) <= max(fx, fy) < 1e3 * width):
        raise ValueError("a focal length is none")
    if not (0 <= cx <= width and 0 <= cy <= height):
        raise ValueError("the optical axis lies outside the picture")
    return ColmapCamera(width, height, fx, fy, cx, cy, tuple(values[i] for i in distortion))


def _pose(quaternion, translation) -> np.ndarray:
    """Camera to world from the world-to-camera quaternion (w, x, y, z) and translation."""
    length = np.linalg.norm(quaternion)
    if not 0 < length < 1e9:
        raise ValueError("a rotation is none")
    w, x, y, z = np.asarray(quaternion) / length
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    c2w = np.eye(4)
    c2w[:3, :3] = rotation.T
    c2w[:3, 3] = -rotation.T @ np.asarray(translation)
    return c2w


def _lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def _cameras_text(path: Path) -> dict[int, ColmapCamera]:
    out = {}
    for line in _lines(path):
        if line.strip():
            number, model, width, height, *values = line.split()
            out[int(number)] = _camera(model, int(width), int(height), [float(v) for v in values])
    return out


def _images_text(path: Path) -> list[ColmapImage]:
    out = []
    # Two lines an image; the second, its points, may be empty.
    for line in _lines(path)[::2]:
        if line.strip():
            _, *pose, camera, name = line.split(maxsplit=9)
            values = [float(v) for v in pose]
            out.append(ColmapImage(name.strip(), int(camera), _pose(values[:4], values[4:])))
    return out


def _points_text(path: Path) -> np.ndarray:
    rows = [[float(v) for v in line.split()[1:4]] for line in _lines(path) if line.strip()]
    return np.array(rows).reshape(-1, 3)


class _Reader:
    """Reads little-endian values one after the other."""

    def __init__(self, path: Path):
        self._data, self._place = path.read_bytes(), 0

    def take(self, layout: str) -> tuple:
        values = struct.unpack_from("<" + layout, self._data, self._place)
        self._place += struct.calcsize("<" + layout)
        return values

    def skip(self, n_bytes: int) -> None:
        self._place += n_bytes
        if self._place > len(self._data):
            raise ValueError("the file ends early")

    def text(self) -> str:
        end = self._data.index(b"\0", self._place)
        value = self._data[self._place : end].decode("utf-8")
        self._place = end + 1
        return value


def _cameras_binary(path: Path) -> dict[int, ColmapCamera]:
    reader, out = _Reader(path), {}
    for _ in range(reader.take("Q")[0]):
        number, model, width, height = reader.take("iiQQ")
        if not 0 <= model < len(_MODEL_IDS):
            _camera(f"number {model}", width, height, [])
        name = _MODEL_IDS[model]
        out[number] = _camera(name, width, height, list(reader.take(f"{_MODELS[name][0]}d")))
    return out


def _images_binary(path: Path) -> list[ColmapImage]:
    reader, out = _Reader(path), []
    for _ in range(reader.take("Q")[0]):
        _, *pose, camera = reader.take("i7di")
        name = reader.text()
        reader.skip(24 * reader.take("Q")[0])  # x, y and the point's number
        out.append(ColmapImage(name, camera, _pose(pose[:4], pose[4:])))
    return out


def _points_binary(path: Path) -> np.ndarray:
    reader, out = _Reader(path), []
    for _ in range(reader.take("Q")[0]):
        _, x, y, z, _, _, _, _, length = reader.take("Q3d3BdQ")
        reader.skip(8 * length)  # where the point was seen
        out.append((x, y, z))
    return np.array(out).reshape(-1, 3)
