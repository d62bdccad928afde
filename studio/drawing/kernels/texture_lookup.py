"""Texture samples and their lit colour: parts of other kernels."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from studio.drawing.kernels.jit import jit


class Textures(NamedTuple):
    """All textures of a scene.

    Attributes:
        texels: all mips of all textures, [N, 4] uint8.
        table: offset, W and H of each level, [K, 16, 3] int64.
        decode: linear light of sRGB, [256].
    """

    texels: np.ndarray
    table: np.ndarray
    decode: np.ndarray


class Drawn(NamedTuple):
    """A scene as one camera sees it.

    Attributes:
        screen: pixel x, pixel y and 1/z, [V, 3] float32.
        triangles: [T, 3]. texture_of: [T].
        uv: [V, 2]. paint: colour and cover over the texture, [V, 4]. shade: light, fade, [V, 4].
        prints: footprints of a pixel (`surface.footprints`), [T, 4].
    """

    screen: np.ndarray
    triangles: np.ndarray
    texture_of: np.ndarray
    uv: np.ndarray
    paint: np.ndarray
    shade: np.ndarray
    prints: np.ndarray
    textures: Textures


@jit
def mean(values, column, corners, weights):
    """One column of values [V, K] at a point: `weights` are those of the triangle's `corners`."""
    a, b, c = corners
    q0, q1, q2 = weights
    return q0 * values[a, column] + q1 * values[b, column] + q2 * values[c, column]


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
def _corners(textures, texture, k, u, v):
    """`corners` in level k of a texture."""
    table = textures.table
    return corners(table[texture, k, 0], table[texture, k, 1], table[texture, k, 2], u, v)


@jit
def _bilinear_alpha(textures, texture, k, u, v):
    i, j, m, n, tx, ty = _corners(textures, texture, k, u, v)
    texels = textures.texels
    return _mixed(
        float(texels[i, 3]), float(texels[j, 3]), float(texels[m, 3]), float(texels[n, 3]), tx, ty
    )


@jit
def _trilinear_alpha(textures, texture, k, t, u, v):
    alpha = _bilinear_alpha(textures, texture, k, u, v)
    if t > 1e-3:
        alpha += t * (_bilinear_alpha(textures, texture, k + 1, u, v) - alpha)
    return alpha


@jit
def sample_alpha(textures, texture, print_, u, v):
    """Alpha in [0, 1], averaged over the footprint `print_` [4] (`surface.footprints`)."""
    k = int(print_[0])
    t = print_[0] - k
    taps = int(print_[1])
    total = 0.0
    for i in range(taps):
        along = (i + 0.5) / taps - 0.5
        total += _trilinear_alpha(
            textures, texture, k, t, u + along * print_[2], v + along * print_[3]
        )
    return total / (255.0 * taps)


@jit
def nearest_alpha(drawn, t, u, v):
    """Alpha in [0, 1] of the nearest texel of the nearest level of triangle t's texture."""
    texture, table = drawn.texture_of[t], drawn.textures.table
    k = int(drawn.prints[t, 0] + 0.5)
    w = table[texture, k, 1]
    h = table[texture, k, 2]
    x = min(max(int(u * w), 0), w - 1)
    y = min(max(int((1.0 - v) * h), 0), h - 1)
    return drawn.textures.texels[table[texture, k, 0] + y * w + x, 3] / 255.0


@jit
def _bilinear_colour(textures, texture, k, u, v):
    i, j, m, n, tx, ty = _corners(textures, texture, k, u, v)
    a, b, c, d = textures.texels[i], textures.texels[j], textures.texels[m], textures.texels[n]
    decode = textures.decode
    return (
        _mixed(decode[a[0]], decode[b[0]], decode[c[0]], decode[d[0]], tx, ty),
        _mixed(decode[a[1]], decode[b[1]], decode[c[1]], decode[d[1]], tx, ty),
        _mixed(decode[a[2]], decode[b[2]], decode[c[2]], decode[d[2]], tx, ty),
    )


@jit
def _trilinear_colour(textures, texture, k, t, u, v):
    red, green, blue = _bilinear_colour(textures, texture, k, u, v)
    if t > 1e-3:
        red1, green1, blue1 = _bilinear_colour(textures, texture, k + 1, u, v)
        red += t * (red1 - red)
        green += t * (green1 - green)
        blue += t * (blue1 - blue)
    return red, green, blue


@jit
def _texture_colour(drawn, t, u, v):
    """Colour of triangle t's texture, averaged over the whole footprint of a pixel."""
    texture, level = drawn.texture_of[t], drawn.prints[t, 0]
    k = int(level)
    part = level - k
    taps = int(drawn.prints[t, 1])
    du, dv = drawn.prints[t, 2], drawn.prints[t, 3]
    red, green, blue = 0.0, 0.0, 0.0
    for i in range(taps):
        along = (i + 0.5) / taps - 0.5
        red1, green1, blue1 = _trilinear_colour(
            drawn.textures, texture, k, part, u + along * du, v + along * dv
        )
        red += red1
        green += green1
        blue += blue1
    return red / taps, green / taps, blue / taps


@jit
def _lit(drawn, colour, channel, cover, corners, weights):
    """One channel of the painted, lit colour, at most 1."""
    if cover > 0.0:
        a, b, c = corners
        q0, q1, q2 = weights
        paint = drawn.paint
        over = (
            q0 * paint[a, channel] * paint[a, 3]
            + q1 * paint[b, channel] * paint[b, 3]
            + q2 * paint[c, channel] * paint[c, 3]
        )
        colour = colour * (1.0 - cover) + over
    return min(colour * mean(drawn.shade, channel, corners, weights), 1.0)


@jit
def shaded(drawn, t, weights, carefully):
    """Lit linear colour (r, g, b) of triangle t at the point with `weights` of its corners.

    Args:
        carefully: average over the whole footprint of a pixel; else take one bilinear sample,
            which is enough for fragments whose alpha carries the detail.
    """
    corners = drawn.triangles[t, 0], drawn.triangles[t, 1], drawn.triangles[t, 2]
    u = mean(drawn.uv, 0, corners, weights)
    v = mean(drawn.uv, 1, corners, weights)
    if carefully:
        red, green, blue = _texture_colour(drawn, t, u, v)
    else:
        k = int(drawn.prints[t, 0] + 0.5)
        red, green, blue = _bilinear_colour(drawn.textures, drawn.texture_of[t], k, u, v)
    cover = mean(drawn.paint, 3, corners, weights)
    return (
        _lit(drawn, red, 0, cover, corners, weights),
        _lit(drawn, green, 1, cover, corners, weights),
        _lit(drawn, blue, 2, cover, corners, weights),
    )
