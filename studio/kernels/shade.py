"""Colour of every pixel from the surface and the translucent fragments over it."""

from __future__ import annotations

import numpy as np

from studio.kernels.jit import jit
from studio.kernels.layers import SPENT
from studio.kernels.sampling import shaded
from studio.kernels.surface import doubled_area, planes


@jit
def _colour(
    x, y, t, screen, triangles, texture_of, uv, paint, shade, texels, table, levels, decode
):
    """Lit linear colour of triangle `t` at sample (x, y)."""
    a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
    inv = 1.0 / doubled_area(screen, a, b, c)
    d0x, d0y, d1x, d1y = planes(screen, a, b, c, inv)
    b0 = d0x * (x + 0.5 - screen[b, 0]) + d0y * (y + 0.5 - screen[b, 1])
    b1 = d1x * (x + 0.5 - screen[c, 0]) + d1y * (y + 0.5 - screen[c, 1])
    q0 = b0 * screen[a, 2]
    q1 = b1 * screen[b, 2]
    q2 = (1.0 - b0 - b1) * screen[c, 2]
    inv = 1.0 / (q0 + q1 + q2)
    return shaded(
        q0 * inv, q1 * inv, q2 * inv, a, b, c, uv, paint, shade, texels, table, texture_of[t],
        levels[t], decode,
    )  # fmt: skip


@jit
def resolve(
    screen, triangles, texture_of, uv, paint, shade, texels, table, levels, decode, encode,
    ids, head, link, alpha, owner, factor, out,
):  # fmt: skip
    """Shades the samples near to far and averages them in linear light.

    Args:
        encode: [K] uint8, sRGB of linear light 0..1 in K - 1 steps.
        factor: samples a side of one output pixel.
        out: [H / factor, W / factor, 4] uint8, sRGB and straight alpha, set.
    """
    share = 1.0 / (factor * factor)
    steps = encode.shape[0] - 1
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            red, green, blue, cover = 0.0, 0.0, 0.0, 0.0
            for y in range(row * factor, (row + 1) * factor):
                for x in range(column * factor, (column + 1) * factor):
                    through = 1.0
                    r, g, b = 0.0, 0.0, 0.0
                    f = head[y, x]
                    while f >= 0:
                        r1, g1, b1 = _colour(
                            x, y, owner[f], screen, triangles, texture_of, uv, paint, shade,
                            texels, table, levels, decode,
                        )  # fmt: skip
                        weight = through * alpha[f]
                        r += weight * r1
                        g += weight * g1
                        b += weight * b1
                        through *= 1.0 - alpha[f]
                        f = link[f]
                    if through < SPENT:
                        # What is behind was not collected: the rest stands for it.
                        r, g, b = r / (1 - through), g / (1 - through), b / (1 - through)
                        through = 0.0
                    elif ids[y, x] >= 0:
                        r1, g1, b1 = _colour(
                            x, y, ids[y, x], screen, triangles, texture_of, uv, paint, shade,
                            texels, table, levels, decode,
                        )  # fmt: skip
                        r += through * r1
                        g += through * g1
                        b += through * b1
                        through = 0.0
                    red += r
                    green += g
                    blue += b
                    cover += 1.0 - through
            level = int(cover * share * 255.0 + 0.5)
            out[row, column, 3] = level
            if level > 0:
                out[row, column, 0] = encode[int(min(red / cover, 1.0) * steps + 0.5)]
                out[row, column, 1] = encode[int(min(green / cover, 1.0) * steps + 0.5)]
                out[row, column, 2] = encode[int(min(blue / cover, 1.0) * steps + 0.5)]
            else:
                for k in range(3):
                    out[row, column, k] = np.uint8(0)
