"""Colour of every pixel from the surface and the translucent fragments over it."""

from __future__ import annotations

import numpy as np

from studio.drawing.kernels.jit import jit
from studio.drawing.kernels.surface import doubled_area, planes
from studio.drawing.kernels.surface_layers import SAME_DEPTH, SPENT
from studio.drawing.kernels.texture_lookup import shaded


@jit
def _add_colour(drawn, t, x, y, weight, carefully, light):
    """Add `weight` of triangle t's lit linear colour at (x, y) of the supersampled picture."""
    screen = drawn.screen
    a, b, c = drawn.triangles[t, 0], drawn.triangles[t, 1], drawn.triangles[t, 2]
    inv = 1.0 / doubled_area(screen, a, b, c)
    d0x, d0y, d1x, d1y = planes(screen, a, b, c, inv)
    b0 = d0x * (x - screen[b, 0]) + d0y * (y - screen[b, 1])
    b1 = d1x * (x - screen[c, 0]) + d1y * (y - screen[c, 1])
    # Beside the triangle, where it stands for a neighbour, its nearest point counts.
    q0 = max(b0, 0.0) * screen[a, 2]
    q1 = max(b1, 0.0) * screen[b, 2]
    q2 = max(1.0 - b0 - b1, 0.0) * screen[c, 2]
    inv = 1.0 / (q0 + q1 + q2)
    red, green, blue = shaded(drawn, t, (q0 * inv, q1 * inv, q2 * inv), carefully)
    light[0] += weight * red
    light[1] += weight * green
    light[2] += weight * blue
    light[3] += weight


@jit
def _add_fragments(drawn, layers, row, column, factor, through, light):
    """Add the colours of a pixel's fragments, near to far, and dim `through` behind them."""
    y0, x0 = row * factor, column * factor
    f = layers.head[row, column]
    while f >= 0:
        weight, count, sx, sy = 0.0, 0, 0, 0
        bits, iz = layers.mask[f], layers.depth[f]
        s = 0
        for y in range(y0, y0 + factor):
            for x in range(x0, x0 + factor):
                if bits & 1 and iz >= layers.spent[y, x]:
                    weight += through[s] * layers.alpha[f]
                    through[s] *= 1.0 - layers.alpha[f]
                    count += 1
                    sx += x
                    sy += y
                bits >>= 1
                s += 1
        if weight > 0.0:
            x, y = sx / count + 0.5, sy / count + 0.5
            _add_colour(drawn, layers.owner[f], x, y, weight, False, light)
        f = layers.link[f]


@jit
def _add_surface(drawn, layers, row, column, factor, through, light):
    """Add the colours of the surface behind a pixel's fragments.

    Returns:
        How many samples are covered.
    """
    zbuf, ids, spent, texture_of = layers.zbuf, layers.ids, layers.spent, drawn.texture_of
    y0, x0 = row * factor, column * factor
    cover = float(factor * factor)
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
            _add_colour(drawn, t, sx / count + 0.5, sy / count + 0.5, weight, True, light)
    return cover


@jit
def resolve(drawn, layers, encode, factor, out):
    """Shade each pixel near to far and average its samples in linear light.

    A surface is shaded once in a pixel, in the middle of the samples that see it; a texture's
    triangles at one depth are one surface.

    Args:
        encode: [K] uint8, sRGB of linear light 0..1 in K - 1 steps.
        factor: samples a side of one output pixel.
        out: [H / factor, W / factor, 4] uint8, sRGB and straight alpha, set.
    """
    share = 1.0 / (factor * factor)
    steps = encode.shape[0] - 1
    through = np.zeros(factor * factor)  # light left of each sample
    light = np.zeros(4)  # red, green, blue and the weight of what they are the sum of
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            through[:] = 1.0
            light[:] = 0.0
            _add_fragments(drawn, layers, row, column, factor, through, light)
            cover = _add_surface(drawn, layers, row, column, factor, through, light)
            level = int(cover * share * 255.0 + 0.5)
            out[row, column, 3] = level
            for k in range(3):
                if level > 0:
                    out[row, column, k] = encode[int(min(light[k] / light[3], 1.0) * steps + 0.5)]
                else:
                    out[row, column, k] = np.uint8(0)
