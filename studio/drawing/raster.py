"""Rasteriser: a scene and a camera to RGBA with antialiased straight alpha."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from captures.cameras import Cameras
from runtime.errors import UserError
from studio.drawing.scene import Scene
from studio.drawing.textures import LINEAR_TO_SRGB, SRGB_TO_LINEAR

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
    """Draws `scene`.

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
    triangles, texture_of = scene.triangles, scene.triangle_texture
    prints = kernels.footprints(
        screen, triangles, 0, len(triangles), texture_of, scene.uv, scene.table, scene.n_levels,
        supersampling,
    )  # fmt: skip
    order = _front_to_back(screen, triangles[scene.n_solid :]) + scene.n_solid
    textures = (scene.texels, scene.table, prints)
    textured = (texture_of, scene.uv, scene.shade, *textures)
    zbuf = np.zeros(shape, dtype=np.float32)
    surface = np.full(shape, -1, dtype=np.int32)
    kernels.visible(screen, triangles, np.arange(scene.n_solid), *textured, 0.0, zbuf, surface)
    magnification = camera.fx * camera.fy * supersampling**2
    room = 4 * out.shape[0] * out.shape[1] if len(order) else 0
    while True:
        ids, spent = surface.copy(), np.zeros(shape, dtype=np.float32)
        head = np.full(out.shape[:2], -1, dtype=np.int32)
        link, owner = np.empty(room, dtype=np.int32), np.empty(room, dtype=np.int32)
        mask = np.empty(room, dtype=np.int64)
        depth, alpha = np.empty(room, dtype=np.float32), np.empty(room, dtype=np.float32)
        lists = (ids, spent, head, link, mask, depth, alpha, owner)
        if kernels.collect(
            screen, scene.positions, scene.triangle_sheer, magnification, triangles, order,
            *textured, supersampling, zbuf, *lists,
        ):  # fmt: skip
            break
        room *= 2
    shading = (texture_of, scene.uv, scene.paint, scene.shade, *textures)
    tables = (SRGB_TO_LINEAR, LINEAR_TO_SRGB)
    kernels.resolve(screen, triangles, *shading, *tables, zbuf, *lists, supersampling, out)
    picture[rows, columns] = out
    return picture


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
    zbuf = np.zeros((camera.height, camera.width), dtype=np.float32)
    ids = np.full(zbuf.shape, -1, dtype=np.int32)
    screen = _screen(scene, camera, 1)
    triangles, texture_of = scene.triangles, scene.triangle_texture
    n_solid, n_all = scene.n_solid, len(triangles)
    prints = kernels.footprints(
        screen, triangles, n_solid, n_all, texture_of, scene.uv, scene.table, scene.n_levels, 1
    )
    textured = (texture_of, scene.uv, scene.shade, scene.texels, scene.table, prints)
    kernels.visible(screen, triangles, np.arange(n_solid), *textured, 0.0, zbuf, ids)
    order = _front_to_back(screen, triangles[n_solid:]) + n_solid
    kernels.visible(screen, triangles, order, *textured, alpha_cut, zbuf, ids)
    return screen, zbuf, ids
