"""Rasteriser: a scene and a camera to RGBA with antialiased straight alpha."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from renderer.cameras import Cameras
from runtime.errors import UserError
from studio.scene import Scene
from studio.textures import SRGB_TO_LINEAR, encode


@dataclass
class Camera:
    """One pinhole camera as NumPy values (OpenCV axes, house world)."""

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
        from studio import kernels
    except ImportError as error:
        raise UserError(
            f"the studio draws with numba, which cannot be imported ({error}); install it with "
            "pip install 'triavatar[studio]'"
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


def draw(scene: Scene, camera: Camera, supersampling: int = 2) -> np.ndarray:
    """Draws `scene`.

    Solid parts are resolved by depth buffer, translucent ones by a sorted list per sample, so
    the order of hair cards is right from every side. Samples are averaged in linear light.

    Args:
        supersampling: samples a side of every pixel.

    Returns:
        [H, W, 4] uint8, sRGB with straight alpha; colour is 0 where alpha is 0.
    """
    kernels = load_kernels()
    h, w = camera.height * supersampling, camera.width * supersampling
    screen = _screen(scene, camera, supersampling)
    zbuf = np.zeros((h, w), dtype=np.float32)
    ids = np.full((h, w), -1, dtype=np.int32)
    textured = (
        scene.triangle_texture,
        scene.uv,
        scene.shade,
        scene.texels,
        scene.table,
        scene.n_levels,
    )
    n_all = len(scene.triangles)
    kernels.visible(screen, scene.triangles, 0, scene.n_solid, *textured, 0.0, zbuf, ids)
    kernels.visible(
        screen, scene.triangles, scene.n_solid, n_all, *textured, kernels._SOLID_ALPHA, zbuf, ids
    )
    room = h * w
    while True:
        head = np.full((h, w), -1, dtype=np.int32)
        link = np.empty(room, dtype=np.int32)
        depth = np.empty(room, dtype=np.float32)
        colour = np.empty((room, 4), dtype=np.float32)
        owner = np.empty(room, dtype=np.int32)
        shading = (
            scene.triangle_texture,
            scene.uv,
            scene.paint,
            scene.shade,
            scene.texels,
            scene.table,
            scene.n_levels,
            SRGB_TO_LINEAR,
        )
        n = kernels.layers(
            screen,
            scene.triangles,
            scene.n_solid,
            *shading,
            zbuf,
            ids,
            head,
            link,
            depth,
            colour,
            owner,
        )
        if n <= room:
            break
        room = n
    out = np.empty((camera.height, camera.width, 4), dtype=np.float32)
    kernels.resolve(
        screen, scene.triangles, *shading, ids, head, link, depth, colour, supersampling, out
    )
    return straight(out)


def straight(premultiplied: np.ndarray) -> np.ndarray:
    """Premultiplied linear [H, W, 4] → sRGB uint8 with straight alpha."""
    alpha = premultiplied[..., 3:]
    level = np.round(alpha * 255).astype(np.uint8)
    colour = encode(premultiplied[..., :3] / np.maximum(alpha, 1e-6))
    colour[level[..., 0] == 0] = 0
    return np.concatenate([colour, level], -1)


def inverse_depth(scene: Scene, camera: Camera, alpha_cut: float = 0.5) -> np.ndarray:
    """1/z of the nearest surface [H, W] (0: none); translucent texels count from `alpha_cut`."""
    return visible_surface(scene, camera, alpha_cut)[1]


def visible_surface(
    scene: Scene, camera: Camera, alpha_cut: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the pixel centres see; translucent texels count from `alpha_cut`.

    Returns:
        Projected vertices [V, 3] (pixel x, y, 1/z), 1/z [H, W] (0: none), triangle [H, W] (-1:
        none).
    """
    kernels = load_kernels()
    zbuf = np.zeros((camera.height, camera.width), dtype=np.float32)
    ids = np.full(zbuf.shape, -1, dtype=np.int32)
    screen = _screen(scene, camera, 1)
    textured = (scene.triangle_texture, scene.uv, scene.shade, scene.texels, scene.table)
    textured = (*textured, scene.n_levels)
    n_all = len(scene.triangles)
    kernels.visible(screen, scene.triangles, 0, scene.n_solid, *textured, 0.0, zbuf, ids)
    kernels.visible(screen, scene.triangles, scene.n_solid, n_all, *textured, alpha_cut, zbuf, ids)
    return screen, zbuf, ids
