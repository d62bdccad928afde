"""Projection, texture footprints and the solid surface."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from studio.drawing.kernels.jit import jit
from studio.drawing.kernels.texture_lookup import mean, nearest_alpha

# Barycentric slack: samples on the edge between two triangles belong to one of them at least.
_SLACK = 1e-10

MOST_TAPS = 4.0  # texture samples along a footprint's long axis
SHARPER = 0.5  # mip levels below the one whose texels are as large as a pixel


@jit
def project(positions, rotation, origin, fx, fy, cx, cy):
    """World [V, 3] → pixel x, y and 1/z [V, 3] float32; 1/z is 0 behind the near limit."""
    out = np.zeros((positions.shape[0], 3), dtype=np.float32)
    for i in range(positions.shape[0]):
        dx = positions[i, 0] - origin[0]
        dy = positions[i, 1] - origin[1]
        dz = positions[i, 2] - origin[2]
        x = rotation[0, 0] * dx + rotation[1, 0] * dy + rotation[2, 0] * dz
        y = rotation[0, 1] * dx + rotation[1, 1] * dy + rotation[2, 1] * dz
        z = rotation[0, 2] * dx + rotation[1, 2] * dy + rotation[2, 2] * dz
        if z > 1e-3:
            out[i, 0] = fx * x / z + cx
            out[i, 1] = fy * y / z + cy
            out[i, 2] = 1.0 / z
    return out


@jit
def bounds(screen):
    """Least and greatest x, least and greatest y of the vertices before the near limit."""
    x_min, x_max, y_min, y_max = np.inf, -np.inf, np.inf, -np.inf
    for i in range(screen.shape[0]):
        if screen[i, 2] > 0:
            x_min, x_max = min(x_min, screen[i, 0]), max(x_max, screen[i, 0])
            y_min, y_max = min(y_min, screen[i, 1]), max(y_max, screen[i, 1])
    return x_min, x_max, y_min, y_max


@jit
def footprints(screen, triangles, first, last, texture_of, uv, table, n_levels, rate):
    """Return how a texture is filtered over one shaded pixel of each triangle.

    The pixel's image in the texture is an ellipse. A triangle seen at a slant takes several taps
    along the ellipse's long axis, so that neither thin strands on it break up into dots nor the
    short axis is blurred (Heckbert 1989, section 3.5; taps as in McCormack et al. 1999, "Feline").

    Args:
        first, last: only these triangles are set.
        n_levels: [K] mip levels of each texture.
        rate: samples a side of a shaded pixel.

    Returns:
        [T, 4] float32: fractional mip level, number of taps, long axis in texture coordinates. A
        level within a quarter of a whole one is rounded to it and the span between stretched, so
        that half of the triangles need one level only; the blend stays continuous.
    """
    out = np.zeros((triangles.shape[0], 4), dtype=np.float32)
    for t in range(first, last):
        out[t, 1] = 1.0
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        area = doubled_area(screen, a, b, c)
        texture = texture_of[t]
        if area == 0.0 or n_levels[texture] == 1:
            continue
        w, h = table[texture, 0, 1], table[texture, 0, 2]
        e1u, e1v = (uv[b, 0] - uv[a, 0]) * w, (uv[b, 1] - uv[a, 1]) * h
        e2u, e2v = (uv[c, 0] - uv[a, 0]) * w, (uv[c, 1] - uv[a, 1]) * h
        f1x, f1y = screen[b, 0] - screen[a, 0], screen[b, 1] - screen[a, 1]
        f2x, f2y = screen[c, 0] - screen[a, 0], screen[c, 1] - screen[a, 1]
        scale = rate / area
        ux, uy = (e1u * f2y - e2u * f1y) * scale, (e2u * f1x - e1u * f2x) * scale
        vx, vy = (e1v * f2y - e2v * f1y) * scale, (e2v * f1x - e1v * f2x) * scale
        uu, vv, uw = ux * ux + uy * uy, vx * vx + vy * vy, ux * vx + uy * vy
        spread = math.sqrt((uu - vv) * (uu - vv) + 4.0 * uw * uw)
        major = 0.5 * (uu + vv + spread)  # squared lengths of the ellipse's axes
        minor = 0.5 * (uu + vv - spread)
        if major <= 1.0:
            continue
        long_axis = math.sqrt(major)
        taps = min(math.ceil(long_axis / math.sqrt(max(minor, 1.0)) - 0.4), MOST_TAPS)
        if taps > 1.0:
            # The larger of the two eigenvectors' forms, for its precision.
            du, dv = (major - vv, uw) if uu > vv else (uw, major - uu)
            length = long_axis / math.sqrt(du * du + dv * dv)
            out[t, 1] = taps
            out[t, 2] = du * length / w
            out[t, 3] = dv * length / h
        level = max(math.log2(long_axis / max(taps, 1.0)) - SHARPER, 0.0)
        whole = math.floor(level)
        part = min(max(2.0 * (level - whole) - 0.5, 0.0), 1.0)
        out[t, 0] = min(whole + part, n_levels[texture] - 1.0)
    return out


@jit
def planes(screen, a, b, c, inv):
    """Barycentric weights on the screen: b0 = d0x (px - bx) + d0y (py - by), b1 likewise from c."""
    ax, ay = float(screen[a, 0]), float(screen[a, 1])
    bx, by = float(screen[b, 0]), float(screen[b, 1])
    cx, cy = float(screen[c, 0]), float(screen[c, 1])
    return (by - cy) * inv, (cx - bx) * inv, (cy - ay) * inv, (ax - cx) * inv


@jit
def doubled_area(screen, a, b, c):
    """Signed twice the area on the screen; 0 where a corner is behind the near limit."""
    if screen[a, 2] <= 0 or screen[b, 2] <= 0 or screen[c, 2] <= 0:
        return 0.0
    ax, ay = float(screen[a, 0]), float(screen[a, 1])
    bx, by = float(screen[b, 0]), float(screen[b, 1])
    cx, cy = float(screen[c, 0]), float(screen[c, 1])
    return (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)


@jit
def box(screen, a, b, c, w, h):
    """First and end column, first and end row of the samples a triangle may cover."""
    ax, ay = screen[a, 0], screen[a, 1]
    bx, by = screen[b, 0], screen[b, 1]
    cx, cy = screen[c, 0], screen[c, 1]
    # Sample x lies at x + 0.5; a little slack, so that rounding loses none.
    return (
        int(max(math.ceil(min(ax, bx, cx) - 0.501), 0.0)),
        int(min(math.floor(max(ax, bx, cx) - 0.499) + 1.0, float(w))),
        int(max(math.ceil(min(ay, by, cy) - 0.501), 0.0)),
        int(min(math.floor(max(ay, by, cy) - 0.499) + 1.0, float(h))),
    )


@jit
def span(r, d, low, high):
    """Narrow [low, high) to the samples x with r + d x >= -slack; (low, high)."""
    if d > 0.0:
        low = max(low, int(math.ceil(min((-_SLACK - r) / d, 1e9))))
    elif d < 0.0:
        high = min(high, int(math.floor(max((-_SLACK - r) / d, -1e9))) + 1)
    elif r < -_SLACK:
        high = low
    return low, high


class Facet(NamedTuple):
    """A triangle on the screen.

    Its barycentric weights are b0 = d0x (px - bx) + d0y (py - by) and b1 likewise from c.

    Attributes:
        bx, by, cx, cy: its second and third corner. za, zb, zc: 1/z of all three.
    """

    d0x: float
    d0y: float
    d1x: float
    d1y: float
    bx: float
    by: float
    cx: float
    cy: float
    za: float
    zb: float
    zc: float


@jit
def facet_of(screen, a, b, c, area):
    """The triangle of corners a, b, c, whose doubled area is not 0."""
    d0x, d0y, d1x, d1y = planes(screen, a, b, c, 1.0 / area)
    return Facet(
        d0x, d0y, d1x, d1y,
        float(screen[b, 0]), float(screen[b, 1]), float(screen[c, 0]), float(screen[c, 1]),
        float(screen[a, 2]), float(screen[b, 2]), float(screen[c, 2]),
    )  # fmt: skip


@jit
def row_weights(facet, y):
    """b0 and b1 at x = 0 for the samples of row y: their weight at sample x is that + d · x."""
    py = y + 0.5
    return (
        facet.d0y * (py - facet.by) + facet.d0x * (0.5 - facet.bx),
        facet.d1y * (py - facet.cy) + facet.d1x * (0.5 - facet.cx),
    )


@jit
def row_span(facet, y, low, high):
    """First and end sample of row y that lie in a triangle, within [low, high)."""
    r0, r1 = row_weights(facet, y)
    low, high = span(r0, facet.d0x, low, high)
    low, high = span(r1, facet.d1x, low, high)
    return span(1.0 - r0 - r1, -facet.d0x - facet.d1x, low, high)


@jit
def visible(drawn, order, cut, zbuf, ids):
    """Draw the triangles of `order` [K] into the depth buffer and the id buffer.

    Args:
        cut: alpha from which a texel is solid; 0 draws everything without looking at alpha or
            footprints.
        zbuf: [H, W] float32, 1/z of the nearest fragment so far (0: none), updated.
        ids: [H, W] int32, its triangle (-1: none), updated.
    """
    screen, triangles = drawn.screen, drawn.triangles
    h, w = zbuf.shape
    for place in range(order.shape[0]):
        t = order[place]
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        area = doubled_area(screen, a, b, c)
        if area == 0.0:
            continue
        x_min, x_max, y_min, y_max = box(screen, a, b, c, w, h)
        if x_min >= x_max or y_min >= y_max:
            continue
        facet = facet_of(screen, a, b, c, area)
        za, zb, zc = facet.za, facet.zb, facet.zc
        for y in range(y_min, y_max):
            r0, r1 = row_weights(facet, y)
            low, high = row_span(facet, y, x_min, x_max)
            for x in range(low, high):
                b0 = r0 + facet.d0x * x
                b1 = r1 + facet.d1x * x
                b2 = 1.0 - b0 - b1
                iz = b0 * za + b1 * zb + b2 * zc
                if iz <= zbuf[y, x]:
                    continue
                if cut > 0.0:
                    weights = b0 * za / iz, b1 * zb / iz, b2 * zc / iz
                    u = mean(drawn.uv, 0, (a, b, c), weights)
                    v = mean(drawn.uv, 1, (a, b, c), weights)
                    fade = mean(drawn.shade, 3, (a, b, c), weights)
                    if fade * nearest_alpha(drawn, t, u, v) < cut:
                        continue
                zbuf[y, x] = iz
                ids[y, x] = t
