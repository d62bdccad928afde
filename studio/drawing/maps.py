"""Depth, normals and part labels beside the pictures.

Files, for frame i, one value a pixel, sampled at the pixel's centre; a texel of hair counts as
surface from alpha 0.5:

- ``depth_%06d.png``: 16 bits, depth along the viewing axis in world units × 8192; 0 is empty.
- ``normal_%06d.png``: 8-bit RGB, (unit normal in our world + 1) / 2 × 255; black is empty.
- ``label_%06d.png``: 8 bits, index into `studio.drawing.scene.LABELS`; 0 is background.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from runtime.files import atomic_path
from studio.drawing.raster import Camera, visible_surface
from studio.drawing.scene import Scene

MAPS = ("depth", "normal", "label")
DEPTH_STEPS = 8192  # steps of the depth file per world unit: up to 8 units
# The quickest setting within a few percent of the smallest files.
_RUNS = {"compress_level": 1, "compress_type": zlib.Z_RLE}
_COMPRESSION = {"depth": {"compress_level": 4}, "normal": _RUNS, "label": _RUNS}


@dataclass
class SurfaceMaps:
    """depth [H, W] float32 (0: empty), normal [H, W, 3] float32 (0: empty), label [H, W] uint8."""

    depth: np.ndarray
    normal: np.ndarray
    label: np.ndarray


def draw_maps(scene: Scene, camera: Camera) -> SurfaceMaps:
    """The visible surface of `scene` at the pixel centres of `camera`."""
    screen, _, ids = visible_surface(scene, camera)
    from studio.drawing.kernels import map_kernels

    shape = ids.shape
    out = SurfaceMaps(
        np.zeros(shape, np.float32), np.zeros((*shape, 3), np.float32), np.zeros(shape, np.uint8)
    )
    map_kernels.surface(
        screen,
        scene.triangles,
        scene.normals,
        scene.triangle_label,
        ids,
        out.depth,
        out.normal,
        out.label,
    )
    return out


def write_maps(folder: Path, frame: int, maps: SurfaceMaps, names: tuple[str, ...]) -> None:
    """Write the maps in `names` (of MAPS) of one frame."""
    pictures = {
        "depth": np.round(np.clip(maps.depth * DEPTH_STEPS, 0, 65535)).astype(np.uint16),
        "normal": np.where(
            (maps.label > 0)[..., None], np.round((maps.normal + 1) * 127.5), 0
        ).astype(np.uint8),
        "label": maps.label,
    }
    for name in names:
        with atomic_path(folder / f"{name}_{frame:06d}.png") as temporary:
            Image.fromarray(pictures[name]).save(temporary, format="PNG", **_COMPRESSION[name])
