"""Rasteriser: a scene and a camera to RGBA with antialiased straight alpha."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from captures.cameras import Cameras
from runtime.errors import UserError
from studio.drawing.scene import Scene
from studio.drawing.textures import LINEAR_TO_SRGB, SRGB_TO_LINEAR

if TYPE_CHECKING:
    from studio.drawing.kernels import Drawn

MOST_SAMPLES = 8  # a side of a pixel: their mask has 64 bits


@dataclass
class Camera:
    """One pinhole camera as NumPy values (OpenCV axes, world)."""

    rotation: np.ndarray
    origin: np.ndarray
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    @staticmethod
    def of(cameras: Cameras, index: int) -> Camera:
        """View `index` of `cameras`."""
        c2w = cameras.c2w[index].double().numpy()
        values = (float(getattr(cameras, k)[index]) for k in ("fx", "fy", "cx", "cy"))
        return Camera(
            np.ascontiguousarray(c2w[:3, :3]),
            c2w[:3, 3].copy(),
            *values,
            cameras.width,
            cameras.height,
        )


def load_kernels():
    """The compiled kernels' module.

    Raises:
        UserError: numba is not installed.
    """
    try:
        from studio.drawing import kernels
    except ImportError as error:
        raise UserError(
            f"the studio draws with numba, which cannot be imported ({error}); pip install numba"
        ) from error
    return kernels


def _screen(scene: Scene, camera: Camera, factor: int) -> np.ndarray:
    return load_kernels().project(
        scene.positions,
        camera.rotation,
        camera.origin,
        camera.fx * factor,
        camera.fy * factor,
        camera.cx * factor,
        camera.cy * factor,
    )


def _covered(screen: np.ndarray, camera: Camera, factor: int) -> tuple[slice, slice]:
    """Rows and columns of the pixels that the projected vertices [V, 3] span."""
    x_min, x_max, y_min, y_max = load_kernels().bounds(screen)
    out = []
    for low, high, size in ((y_min, y_max, camera.height), (x_min, x_max, camera.width)):
        # Written so that infinite bounds, where nothing is seen, give an empty slice.
        start = int(max(min(low / factor, size), 0))
        out.append(slice(start, int(max(min(np.ceil(high / factor), size), start))))
    return out[0], out[1]


def _front_to_back(screen: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Indices of `triangles` by their nearest corner, roughly (16 bits), near first."""
    nearest = screen[triangles, 2].max(1)
    span = max(float(np.ptp(nearest)), 1e-12) if len(nearest) else 1.0
    key = (nearest.max(initial=0.0) - nearest) * (65535 / span)
    return np.argsort(np.clip(key, 0, 65535).astype(np.uint16), kind="stable")


def draw(scene: Scene, camera: Camera, supersampling: int = 2) -> np.ndarray:
    """Draw `scene`.

    Solid parts are resolved by depth buffer, translucent ones by a sorted list per pixel, so the
    order of hair cards is right from every side. Coverage is found at every sample, colour once
    for each surface in a pixel, from filtered textures. Averages are those of linear light.

    Args:
        supersampling: samples a side of every pixel, at most 8.

    Returns:
        [H, W, 4] uint8, sRGB with straight alpha; colour is 0 where alpha is 0.

    Raises:
        UserError: a number of samples beyond the limit.
    """
    if not 1 <= supersampling <= MOST_SAMPLES:
        raise UserError(f"supersampling is {supersampling}; it must be from 1 to {MOST_SAMPLES}")
    kernels = load_kernels()
    picture = np.zeros((camera.height, camera.width, 4), dtype=np.uint8)
    screen = _screen(scene, camera, supersampling)
    rows, columns = _covered(screen, camera, supersampling)
    out = np.zeros((rows.stop - rows.start, columns.stop - columns.start, 4), dtype=np.uint8)
    if not out.size:
        return picture
    screen[:, :2] -= np.float32(supersampling) * np.array([columns.start, rows.start], np.float32)
    shape = (out.shape[0] * supersampling, out.shape[1] * supersampling)
    drawn = _drawn(scene, screen, 0, supersampling)
    zbuf, ids = _buffers(shape)
    kernels.visible(drawn, np.arange(scene.n_solid), 0.0, zbuf, ids)
    order = _front_to_back(screen, scene.triangles[scene.n_solid :]) + scene.n_solid
    magnification = camera.fx * camera.fy * supersampling**2
    sheets = kernels.Sheets(scene.positions, scene.triangle_sheer, magnification)
    room = 4 * out.shape[0] * out.shape[1] if len(order) else 0
    while True:
        layers = kernels.Layers.empty(zbuf, ids, supersampling, room)
        if kernels.collect(drawn, sheets, order, layers, supersampling):
            break
        room *= 2
    kernels.resolve(drawn, layers, LINEAR_TO_SRGB, supersampling, out)
    picture[rows, columns] = out
    return picture


def _drawn(scene: Scene, screen: np.ndarray, first: int, rate: int) -> Drawn:
    """What the kernels read; footprints of `rate` samples a side, from triangle `first` on."""
    kernels = load_kernels()
    triangles, texture_of = scene.triangles, scene.triangle_texture
    prints = kernels.footprints(
        screen, triangles, first, len(triangles), texture_of, scene.uv, scene.table,
        scene.n_levels, rate,
    )  # fmt: skip
    textures = kernels.Textures(scene.texels, scene.table, SRGB_TO_LINEAR)
    return kernels.Drawn(
        screen, triangles, texture_of, scene.uv, scene.paint, scene.shade, prints, textures
    )


def _buffers(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """1/z and triangle of every sample, before anything is drawn."""
    return np.zeros(shape, np.float32), np.full(shape, -1, np.int32)


def inverse_depth(scene: Scene, camera: Camera, alpha_cut: float = 0.5) -> np.ndarray:
    """1/z of the nearest surface [H, W] (0: none); translucent texels count from `alpha_cut`."""
    return visible_surface(scene, camera, alpha_cut)[1]


def visible_surface(
    scene: Scene, camera: Camera, alpha_cut: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what the pixel centres see; translucent texels count from `alpha_cut`.

    Returns:
        Projected vertices [V, 3] (pixel x, y, 1/z), 1/z [H, W] (0: none), triangle [H, W] (-1:
        none).
    """
    kernels = load_kernels()
    zbuf, ids = _buffers((camera.height, camera.width))
    screen = _screen(scene, camera, 1)
    drawn = _drawn(scene, screen, scene.n_solid, 1)
    kernels.visible(drawn, np.arange(scene.n_solid), 0.0, zbuf, ids)
    order = _front_to_back(screen, scene.triangles[scene.n_solid :]) + scene.n_solid
    kernels.visible(drawn, order, alpha_cut, zbuf, ids)
    return screen, zbuf, ids
