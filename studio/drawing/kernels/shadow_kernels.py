"""Numba kernel of the light baking; import only when something is baked."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from studio.drawing.kernels.jit import jit


class Receivers(NamedTuple):
    """Vertices that light falls on.

    Attributes:
        points, normals: [V, 3].
        lift: [V] distance along the normal (and towards the light) that is not shadowed.
        wrap: [V] how far light reaches round the terminator (0: Lambert).
    """

    points: np.ndarray
    normals: np.ndarray
    lift: np.ndarray
    wrap: np.ndarray


class ShadowMap(NamedTuple):
    """1/z of what is nearest, [S, S], seen from `origin` with `rotation` and `focal`."""

    nearest: np.ndarray
    rotation: np.ndarray
    origin: np.ndarray
    focal: float


@jit
def gather(receivers, direction, colour, shadows, lit, open_sky):
    """Add the light of one direction to every vertex, shadowed by a depth map.

    Args:
        direction: [3] towards the light; colour: [C] its radiance.
        lit, open_sky: [V, C] shadowed and unshadowed sums, updated.
    """
    points, normals, lift, wrap = receivers
    nearest, rotation, origin, focal = shadows
    size = nearest.shape[0]
    half = size / 2
    for i in range(points.shape[0]):
        cosine = (
            normals[i, 0] * direction[0]
            + normals[i, 1] * direction[1]
            + normals[i, 2] * direction[2]
        )
        amount = (cosine + wrap[i]) / (1 + wrap[i])
        if amount <= 0:
            continue
        dx = points[i, 0] + lift[i] * normals[i, 0] - origin[0]
        dy = points[i, 1] + lift[i] * normals[i, 1] - origin[1]
        dz = points[i, 2] + lift[i] * normals[i, 2] - origin[2]
        x = rotation[0, 0] * dx + rotation[1, 0] * dy + rotation[2, 0] * dz
        y = rotation[0, 1] * dx + rotation[1, 1] * dy + rotation[2, 1] * dz
        z = rotation[0, 2] * dx + rotation[1, 2] * dy + rotation[2, 2] * dz - lift[i]
        px = focal * x / z + half - 0.5
        py = focal * y / z + half - 0.5
        x0 = int(math.floor(px))
        y0 = int(math.floor(py))
        seen = 1.0
        if 0 <= x0 < size - 1 and 0 <= y0 < size - 1:
            iz = 1.0 / z
            tx = px - x0
            ty = py - y0
            seen = 0.0
            if nearest[y0, x0] <= iz:
                seen += (1 - tx) * (1 - ty)
            if nearest[y0, x0 + 1] <= iz:
                seen += tx * (1 - ty)
            if nearest[y0 + 1, x0] <= iz:
                seen += (1 - tx) * ty
            if nearest[y0 + 1, x0 + 1] <= iz:
                seen += tx * ty
        for k in range(colour.shape[0]):
            open_sky[i, k] += amount * colour[k]
            lit[i, k] += amount * colour[k] * seen
