"""Colour of every pixel from the surface and the translucent fragments over it."""

from __future__ import annotations

import numpy as np

from studio.drawing.kernels.jit import jit
from studio.drawing.kernels.surface import doubled_area, planes
from studio.drawing.kernels.surface_layers import SAME_DEPTH, SPENT
from studio.drawing.kernels.texture_lookup import shaded


@jit
def _colour(
    x, y, t, screen, triangles, texture_of, uv, paint, shade, texels, table, prints, decode,
    carefully,
):  # fmt: skip
    """Lit linear colour of triangle `t` at (x, y) of the supersampled picture."""
    a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
    inv = 1.0 / doubled_area(screen, a, b, c)
    d0x, d0y, d1x, d1y = planes(screen, a, b, c, inv)
    b0 = d0x * (x - screen[b, 0]) + d0y * (y - screen[b, 1])
    b1 = d1x * (x - screen[c, 0]) + d1y * (y - screen[c, 1])
    # Beside the triangle, where it stands for a neighbour, its nearest point counts.
    q0 = max(b0, 0.0) * screen[a, 2]
    q1 = max(b1, 0.0) * screen[b, 2]
    q2 = max(1.0 - b0 - b1, 0.0) * screen[c, 2]
    inv = 1.0 / (q0 + q1 + q2)
    return shaded(
        q0 * inv, q1 * inv, q2 * inv, a, b, c, uv, paint, shade, texels, table, texture_of[t],
        prints[t], decode, carefully,
    )  # fmt: skip


@jit
def resolve(
    screen, triangles, texture_of, uv, paint, shade, texels, table, prints, decode, encode,
    zbuf, ids, spent, head, link, mask, depth, alpha, owner, factor, out,
):  # fmt: skip
    """Shades each pixel near to far and averages its samples in linear light.

    A surface is shaded once in a pixel, in the middle of the samples that see it; a texture's
    triangles at one depth are one surface.

    Args:
        prints: [T, 4] footprints of a pixel.
        encode: [K] uint8, sRGB of linear light 0..1 in K - 1 steps.
        factor: samples a side of one output pixel.
        out: [H / factor, W / factor, 4] uint8, sRGB and straight alpha, set.
    """
    n = factor * factor
    share = 1.0 / n
    steps = encode.shape[0] - 1
    through = np.zeros(n)  # light left of each sample
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            y0, x0 = row * factor, column * factor
            red, green, blue, total = 0.0, 0.0, 0.0, 0.0
            through[:] = 1.0
            f = head[row, column]
            while f >= 0:
                weight, count, sx, sy = 0.0, 0, 0, 0
                bits, iz = mask[f], depth[f]
                s = 0
                for y in range(y0, y0 + factor):
                    for x in range(x0, x0 + factor):
                        if bits & 1 and iz >= spent[y, x]:
                            weight += through[s] * alpha[f]
                            through[s] *= 1.0 - alpha[f]
                            count += 1
                            sx += x
                            sy += y
                        bits >>= 1
                        s += 1
                if weight > 0.0:
                    r, g, b = _colour(
                        sx / count + 0.5, sy / count + 0.5, owner[f], screen, triangles,
                        texture_of, uv, paint, shade, texels, table, prints, decode, False,
                    )  # fmt: skip
                    red += weight * r
                    green += weight * g
                    blue += weight * b
                    total += weight
                f = link[f]
            cover = float(n)
            s = -1
            for y in range(y0, y0 + factor):
                for x in range(x0, x0 + factor):
                    s += 1
                    if through[s] < SPENT:
                        continue  # what is behind was not collected
                    t = ids[y, x]
                    if t < 0:
                        cover -= through[s]
                        continue
                    weight, count, sx, sy = 0.0, 0, 0, 0
                    iz = max(zbuf[y, x], spent[y, x])
                    slack = np.float32(SAME_DEPTH) * iz
                    k = 0
                    for v in range(y0, y0 + factor):
                        for u in range(x0, x0 + factor):
                            other = ids[v, u]
                            if (
                                k >= s
                                and other >= 0
                                and through[k] >= SPENT
                                and texture_of[other] == texture_of[t]
                                and abs(max(zbuf[v, u], spent[v, u]) - iz) < slack
                            ):
                                weight += through[k]
                                through[k] = 0.0
                                count += 1
                                sx += u
                                sy += v
                            k += 1
                    r, g, b = _colour(
                        sx / count + 0.5, sy / count + 0.5, t, screen, triangles, texture_of,
                        uv, paint, shade, texels, table, prints, decode, True,
                    )  # fmt: skip
                    red += weight * r
                    green += weight * g
                    blue += weight * b
                    total += weight
            level = int(cover * share * 255.0 + 0.5)
            out[row, column, 3] = level
            if level > 0:
                out[row, column, 0] = encode[int(min(red / total, 1.0) * steps + 0.5)]
                out[row, column, 1] = encode[int(min(green / total, 1.0) * steps + 0.5)]
                out[row, column, 2] = encode[int(min(blue / total, 1.0) * steps + 0.5)]
            else:
                for k in range(3):
                    out[row, column, k] = np.uint8(0)
