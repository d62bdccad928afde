"""Numba kernel of the depth, normal and label maps; import only when maps are drawn."""

from __future__ import annotations

import math

from studio.drawing.kernels.jit import jit


@jit
def surface(screen, triangles, normals, labels, ids, depth, normal, label):
    """Depth, normal and label at the pixel centres.

    Args:
        screen: [V, 3] pixel x, y and 1/z; normals: [V, 3]; labels: [T].
        ids: [H, W] visible triangle, -1: none.
        depth: [H, W] along the viewing axis, 0: none, set. normal: [H, W, 3] unit, world, set.
        label: [H, W], set.
    """
    for y in range(ids.shape[0]):
        for x in range(ids.shape[1]):
            t = ids[y, x]
            if t < 0:
                continue
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            px, py = x + 0.5, y + 0.5
            ax, ay = screen[a, 0], screen[a, 1]
            bx, by = screen[b, 0], screen[b, 1]
            cx, cy = screen[c, 0], screen[c, 1]
            inv = 1.0 / ((bx - ax) * (cy - ay) - (cx - ax) * (by - ay))
            b0 = ((bx - px) * (cy - py) - (cx - px) * (by - py)) * inv
            b1 = ((cx - px) * (ay - py) - (ax - px) * (cy - py)) * inv
            b2 = 1.0 - b0 - b1
            iz = b0 * screen[a, 2] + b1 * screen[b, 2] + b2 * screen[c, 2]
            depth[y, x] = 1.0 / iz
            b0 *= screen[a, 2] / iz
            b1 *= screen[b, 2] / iz
            b2 *= screen[c, 2] / iz
            nx = b0 * normals[a, 0] + b1 * normals[b, 0] + b2 * normals[c, 0]
            ny = b0 * normals[a, 1] + b1 * normals[b, 1] + b2 * normals[c, 1]
            nz = b0 * normals[a, 2] + b1 * normals[b, 2] + b2 * normals[c, 2]
            length = math.sqrt(nx * nx + ny * ny + nz * nz)
            if length > 0.0:
                normal[y, x, 0] = nx / length
                normal[y, x, 1] = ny / length
                normal[y, x, 2] = nz / length
            label[y, x] = labels[t]
