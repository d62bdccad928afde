"""A rasteriser, which triangle a pixel sees and where on it: a z-buffer for meshes of one texture.

Legend: V vertices, F triangles, H W picture size in pixels, T side of the texture in texels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from captures.cameras import Cameras
from triavatar.export.jit import jit


@dataclass(frozen=True)
class Seen:
    """The surface that the pixel centres of one picture see.

    Attributes:
        face: triangle, [H, W] int32; -1 where there is none.
        weights: of its three corners, [H, W, 3] float32, corrected for perspective; sum 1.
    """

    face: np.ndarray
    weights: np.ndarray

    @property
    def hit(self) -> np.ndarray:
        """Return whether a pixel sees the mesh, [H, W] bool."""
        return self.face >= 0

    def blend(self, values: np.ndarray, faces: np.ndarray) -> np.ndarray:
        """Values per vertex [V, D] at the pixels that see the mesh, [hits, D], row by row."""
        corners = faces[self.face[self.hit]]
        return (values[corners] * self.weights[self.hit][..., None]).sum(axis=1)


@jit
def _fill(screen, faces, nearest, face, weights):
    """Z-buffer. ``screen`` [V, 3] holds pixel x, y and 1/z; 1/z ≤ 0 is behind the camera."""
    height, width = face.shape
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        za, zb, zc = screen[a, 2], screen[b, 2], screen[c, 2]
        if za <= 0.0 or zb <= 0.0 or zc <= 0.0:
            continue
        ax, ay = screen[a, 0], screen[a, 1]
        bx, by = screen[b, 0], screen[b, 1]
        cx, cy = screen[c, 0], screen[c, 1]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0.0:
            continue
        left = max(0, int(np.ceil(min(ax, min(bx, cx)) - 0.5)))
        right = min(width - 1, int(np.floor(max(ax, max(bx, cx)) - 0.5)))
        top = max(0, int(np.ceil(min(ay, min(by, cy)) - 0.5)))
        bottom = min(height - 1, int(np.floor(max(ay, max(by, cy)) - 0.5)))
        for y in range(top, bottom + 1):
            py = y + 0.5
            for x in range(left, right + 1):
                px = x + 0.5
                wb = ((px - ax) * (cy - ay) - (cx - ax) * (py - ay)) / area
                wc = ((bx - ax) * (py - ay) - (px - ax) * (by - ay)) / area
                wa = 1.0 - wb - wc
                if wa < 0.0 or wb < 0.0 or wc < 0.0:
                    continue
                near = wa * za + wb * zb + wc * zc
                if near > nearest[y, x]:
                    nearest[y, x] = near
                    face[y, x] = f
                    weights[y, x, 0] = wa * za / near
                    weights[y, x, 1] = wb * zb / near
                    weights[y, x, 2] = wc * zc / near


def rasterise(screen: np.ndarray, faces: np.ndarray, width: int, height: int) -> Seen:
    """Find what each pixel centre sees.

    Args:
        screen: pixel x, pixel y and 1/z of every vertex, [V, 3]; 1/z ≤ 0 lies behind the camera,
            and triangles that reach there are left out.
        faces: corners, [F, 3] int.
    """
    nearest = np.zeros((height, width))
    face = np.full((height, width), -1, dtype=np.int32)
    weights = np.zeros((height, width, 3), dtype=np.float32)
    _fill(screen.astype(np.float64), faces.astype(np.int32), nearest, face, weights)
    return Seen(face, weights)


def see(vertices: np.ndarray, faces: np.ndarray, cameras: Cameras, view: int) -> Seen:
    """Return what a camera sees of a mesh.

    Args:
        vertices: [V, 3] in world units.
        faces: [F, 3].
        cameras: on the CPU.
        view: which of them.
    """
    one = cameras[view]
    c2w = one.c2w[0].double().numpy()
    local = (vertices.astype(np.float64) - c2w[:3, 3]) @ c2w[:3, :3]
    inverse = np.where(local[:, 2] > 1e-6, 1 / np.maximum(local[:, 2], 1e-6), 0.0)
    x = local[:, 0] * inverse * float(one.fx[0]) + float(one.cx[0])
    y = local[:, 1] * inverse * float(one.fy[0]) + float(one.cy[0])
    return rasterise(np.stack([x, y, inverse], axis=1), faces, one.width, one.height)


def sample_texture(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Bilinear look-up, clamped at the edge.

    Args:
        texture: [T, T, D]; texel (row 0, column 0) covers u, v from 0 to 1/T.
        uv: [K, 2] in [0, 1], u to the right, v down.

    Returns:
        [K, D] float32.
    """
    height, width = texture.shape[:2]
    x = np.clip(uv[:, 0] * width - 0.5, 0, width - 1)
    y = np.clip(uv[:, 1] * height - 0.5, 0, height - 1)
    left = np.minimum(x.astype(np.int64), width - 2)
    top = np.minimum(y.astype(np.int64), height - 2)
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    upper = texture[top, left] * (1 - fx) + texture[top, left + 1] * fx
    lower = texture[top + 1, left] * (1 - fx) + texture[top + 1, left + 1] * fx
    return (upper * (1 - fy) + lower * fy).astype(np.float32)
