"""Texture samples and their lit colour: parts of other kernels."""

from __future__ import annotations

import math

from studio.drawing.kernels.jit import jit


@jit
def corners(offset, w, h, u, v):
    """Rows of the four texels round (u, v) in a level of w × h texels at `offset`, and weights."""
    x = u * w - 0.5
    y = (1.0 - v) * h - 0.5
    x0 = int(math.floor(x))
    y0 = int(math.floor(y))
    tx = x - x0
    ty = y - y0
    x1 = min(max(x0 + 1, 0), w - 1)
    y1 = min(max(y0 + 1, 0), h - 1)
    x0 = min(max(x0, 0), w - 1)
    y0 = min(max(y0, 0), h - 1)
    top = offset + y0 * w
    bottom = offset + y1 * w
    return top + x0, top + x1, bottom + x0, bottom + x1, tx, ty


@jit
def _mixed(a, b, c, d, tx, ty):
    top = a + tx * (b - a)
    return top + ty * (c + tx * (d - c) - top)


@jit
def _bilinear_alpha(texels, table, texture, k, u, v):
    i, j, m, n, tx, ty = corners(
        table[texture, k, 0], table[texture, k, 1], table[texture, k, 2], u, v
    )
    return _mixed(
        float(texels[i, 3]), float(texels[j, 3]), float(texels[m, 3]), float(texels[n, 3]), tx, ty
    )


@jit
def _trilinear_alpha(texels, table, texture, k, t, u, v):
    alpha = _bilinear_alpha(texels, table, texture, k, u, v)
    if t > 1e-3:
        alpha += t * (_bilinear_alpha(texels, table, texture, k + 1, u, v) - alpha)
    return alpha


@jit
def sample_alpha(texels, table, texture, print_, u, v):
    """Alpha in [0, 1], averaged over the footprint `print_` [4] (`surface.footprints`)."""
    k = int(print_[0])
    t = print_[0] - k
    taps = int(print_[1])
    total = 0.0
    for i in range(taps):
        along = (i + 0.5) / taps - 0.5
        total += _trilinear_alpha(
            texels, table, texture, k, t, u + along * print_[2], v + along * print_[3]
        )
    return total / (255.0 * taps)


@jit
def nearest_alpha(texels, table, texture, level, u, v):
    """Alpha in [0, 1] of the nearest texel of the nearest level."""
    k = int(level + 0.5)
    w = table[texture, k, 1]
    h = table[texture, k, 2]
    x = min(max(int(u * w), 0), w - 1)
    y = min(max(int((1.0 - v) * h), 0), h - 1)
    return texels[table[texture, k, 0] + y * w + x, 3] / 255.0


@jit
def _bilinear_colour(texels, table, texture, k, u, v, decode):
    i, j, m, n, tx, ty = corners(
        table[texture, k, 0], table[texture, k, 1], table[texture, k, 2], u, v
    )
    return (
        _mixed(
            decode[texels[i, 0]], decode[texels[j, 0]], decode[texels[m, 0]], decode[texels[n, 0]],
            tx, ty,
        ),
        _mixed(
            decode[texels[i, 1]], decode[texels[j, 1]], decode[texels[m, 1]], decode[texels[n, 1]],
            tx, ty,
        ),
        _mixed(
            decode[texels[i, 2]], decode[texels[j, 2]], decode[texels[m, 2]], decode[texels[n, 2]],
            tx, ty,
        ),
    )  # fmt: skip


@jit
def _lit(colour, channel, cover, q0, q1, q2, a, b, c, paint, shade):
    """One channel of the painted, lit colour, at most 1."""
    if cover > 0.0:
        over = (
            q0 * paint[a, channel] * paint[a, 3]
            + q1 * paint[b, channel] * paint[b, 3]
            + q2 * paint[c, channel] * paint[c, 3]
        )
        colour = colour * (1.0 - cover) + over
    light = q0 * shade[a, channel] + q1 * shade[b, channel] + q2 * shade[c, channel]
    return min(colour * light, 1.0)


@jit
def _trilinear_colour(texels, table, texture, k, t, u, v, decode):
    red, green, blue = _bilinear_colour(texels, table, texture, k, u, v, decode)
    if t > 1e-3:
        red1, green1, blue1 = _bilinear_colour(texels, table, texture, k + 1, u, v, decode)
        red += t * (red1 - red)
        green += t * (green1 - green)
        blue += t * (blue1 - blue)
    return red, green, blue


@jit
def shaded(
    q0, q1, q2, a, b, c, uv, paint, shade, texels, table, texture, print_, decode, carefully
):  # fmt: skip
    """Lit linear colour (r, g, b) at the point with weights q0, q1, q2 of vertices a, b, c.

    Args:
        carefully: average over the whole footprint `print_` [4]; else take one bilinear sample,
            which is enough for fragments whose alpha carries the detail.
    """
    u = q0 * uv[a, 0] + q1 * uv[b, 0] + q2 * uv[c, 0]
    v = q0 * uv[a, 1] + q1 * uv[b, 1] + q2 * uv[c, 1]
    if not carefully:
        k = int(print_[0] + 0.5)
        red, green, blue = _bilinear_colour(texels, table, texture, k, u, v, decode)
    else:
        k = int(print_[0])
        t = print_[0] - k
        taps = int(print_[1])
        red, green, blue = 0.0, 0.0, 0.0
        for i in range(taps):
            along = (i + 0.5) / taps - 0.5
            red1, green1, blue1 = _trilinear_colour(
                texels, table, texture, k, t, u + along * print_[2], v + along * print_[3], decode
            )
            red += red1
            green += green1
            blue += blue1
        red, green, blue = red / taps, green / taps, blue / taps
    cover = q0 * paint[a, 3] + q1 * paint[b, 3] + q2 * paint[c, 3]
    return (
        _lit(red, 0, cover, q0, q1, q2, a, b, c, paint, shade),
        _lit(green, 1, cover, q0, q1, q2, a, b, c, paint, shade),
        _lit(blue, 2, cover, q0, q1, q2, a, b, c, paint, shade),
    )
