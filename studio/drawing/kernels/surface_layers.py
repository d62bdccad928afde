"""Translucent fragments in front of the solid surface, sorted per pixel.

A fragment is one triangle's share of one pixel: a mask of the pixel's samples, one depth and one
alpha (Carpenter 1984, "The A-buffer").
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from studio.drawing.kernels.jit import jit
from studio.drawing.kernels.surface import box, doubled_area, facet_of, row_span, row_weights
from studio.drawing.kernels.texture_lookup import mean, sample_alpha

SOLID_ALPHA = 250.0 / 255.0
CLEAR_ALPHA = 4.0 / 255.0
SPENT = 1.0 / 128.0  # what lies behind this transmittance is not drawn
# Sheer sheets fade in between these cosines, or these heights of a triangle in samples.
EDGE_ON, TURNED = 0.03, 0.33
THIN, THICK = 0.5, 2.5
TILE = 8  # pixels a side of the blocks in which hidden triangles are skipped
SAME_DEPTH = 2e-3  # relative; fragments of one texture this close are parts of one surface


class Sheets(NamedTuple):
    """Where triangles fade because they are seen edge-on.

    Attributes:
        positions: [V, 3] in the world. sheer: whether a triangle fades, [T].
        magnification: samples² on the screen of unit area at unit distance.
    """

    positions: np.ndarray
    sheer: np.ndarray
    magnification: float


class Layers(NamedTuple):
    """The samples' surface and the lists of fragments in front of it.

    Attributes:
        zbuf: 1/z of the samples' solid surface, [H, W] float32. ids: its triangle, int32.
        spent: [H, W] float32, 0 at first; then 1/z behind which a sample's fragments don't count.
        head: the pixel's nearest fragment, -1: none, [H / factor, W / factor] int32.
        link: the next fragment, [F] int32. mask: bit y · factor + x of each sample, int64.
        depth: 1/z. alpha: of a fragment. float32. owner: its triangle, int32.
    """

    zbuf: np.ndarray
    ids: np.ndarray
    spent: np.ndarray
    head: np.ndarray
    link: np.ndarray
    mask: np.ndarray
    depth: np.ndarray
    alpha: np.ndarray
    owner: np.ndarray

    @classmethod
    def empty(cls, zbuf: np.ndarray, ids: np.ndarray, factor: int, room: int) -> Layers:
        """Over a surface, with room for some fragments."""
        h, w = zbuf.shape
        return cls(
            zbuf,
            ids.copy(),
            np.zeros((h, w), np.float32),
            np.full((h // factor, w // factor), -1, np.int32),
            np.empty(room, np.int32),
            np.empty(room, np.int64),
            *np.empty((2, room), np.float32),
            np.empty(room, np.int32),
        )


@jit
def farthest(zbuf, spent, row, column, factor):
    """1/z at and behind which nothing is drawn in any sample of a pixel."""
    out = np.float32(np.inf)
    for y in range(row * factor, (row + 1) * factor):
        for x in range(column * factor, (column + 1) * factor):
            out = min(out, max(zbuf[y, x], spent[y, x]))
    return out


@jit
def _tiles(hidden):
    """The farthest `hidden` [H, W] of every tile of `TILE` pixels a side."""
    h, w = hidden.shape
    out = np.full(((h + TILE - 1) // TILE, (w + TILE - 1) // TILE), np.inf, dtype=np.float32)
    for y in range(h):
        for x in range(w):
            out[y // TILE, x // TILE] = min(out[y // TILE, x // TILE], hidden[y, x])
    return out


@jit
def _behind(nearest, tiles, x_min, x_max, y_min, y_max):
    """Whether tiles [x_min, x_max) × [y_min, y_max) all hide what is as near as 1/z `nearest`."""
    for row in range(y_min, y_max):
        for column in range(x_min, x_max):
            if nearest > tiles[row, column]:
                return False
    return True


@jit
def _spend(first, bit, link, mask, depth, alpha):
    """1/z of the fragment after which one sample's light is spent, and the light left there."""
    through = np.float32(1.0)
    f = first
    while f >= 0:
        if (mask[f] >> bit) & 1:
            through *= np.float32(1.0) - alpha[f]
            if through < SPENT:
                return depth[f], through
        f = link[f]
    return np.float32(0.0), through


@jit
def _spread(positions, a, b, c):
    """Twice the area of a triangle in the world."""
    ux, vx = positions[b, 0] - positions[a, 0], positions[c, 0] - positions[a, 0]
    uy, vy = positions[b, 1] - positions[a, 1], positions[c, 1] - positions[a, 1]
    uz, vz = positions[b, 2] - positions[a, 2], positions[c, 2] - positions[a, 2]
    x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    return math.sqrt(x * x + y * y + z * z)


@jit
def _longest(screen, a, b, c):
    """Length of a triangle's longest side on the screen."""
    out = 0.0
    for i, j in ((a, b), (b, c), (c, a)):
        x, y = screen[i, 0] - screen[j, 0], screen[i, 1] - screen[j, 1]
        out = max(out, float(x * x + y * y))
    return math.sqrt(out)


@jit
def _joint(bits, alpha, more_bits, more_alpha):
    """Alpha of two fragments' samples together."""
    n, m = 0, 0
    while bits:
        bits &= bits - 1
        n += 1
    while more_bits:
        more_bits &= more_bits - 1
        m += 1
    return np.float32((n * alpha + m * more_alpha) / (n + m))


@jit
def _presence(screen, positions, a, b, c, area, magnification):
    """What is left of a sheer triangle: 0 where it is seen edge-on, 1 from the front."""
    za, zb, zc = float(screen[a, 2]), float(screen[b, 2]), float(screen[c, 2])
    scale = magnification * (za * zb * zc) ** (2.0 / 3.0)
    cosine = abs(area) / max(scale * _spread(positions, a, b, c), 1e-30)
    turned = (cosine - EDGE_ON) / (TURNED - EDGE_ON)
    if turned >= 1.0:
        return 1.0
    thick = (abs(area) / _longest(screen, a, b, c) - THIN) / (THICK - THIN)
    return min(max(turned, thick, 0.0), 1.0)


@jit
def _row_spans(facet, row, factor, bounds, low, high):
    """Set the samples [low, high) of a triangle in each row of samples of a row of pixels.

    Args:
        bounds: as `box` gives them.

    Returns:
        First and end sample of all rows together.
    """
    x_min, x_max, y_min, y_max = bounds
    first, last = x_max, 0
    for j in range(factor):
        y = row * factor + j
        low[j], high[j] = 0, 0
        if y_min <= y < y_max:
            start, end = row_span(facet, y, x_min, x_max)
            if start < end:
                low[j], high[j] = start, end
                first, last = min(first, start), max(last, end)
    return first, last


@jit
def _samples(facet, zbuf, row, column, factor, low, high):
    """A triangle's samples in a pixel before the surface.

    Returns:
        Their mask, their number, and the sums of their places in the pixel.
    """
    dzx = facet.d0x * (facet.za - facet.zc) + facet.d1x * (facet.zb - facet.zc)
    bits, count, sx, sy = 0, 0, 0, 0
    for j in range(factor):
        y = row * factor + j
        r0, r1 = row_weights(facet, y)
        z0 = facet.zc + r0 * (facet.za - facet.zc) + r1 * (facet.zb - facet.zc)
        for i in range(factor):
            x = column * factor + i
            if low[j] <= x < high[j] and np.float32(z0 + dzx * x) > zbuf[y, x]:
                bits |= 1 << (j * factor + i)
                count += 1
                sx += i
                sy += j
    return bits, count, sx, sy


@jit
def _point(facet, px, py):
    """1/z and the corners' perspective weights at a point of a triangle."""
    b0 = facet.d0x * (px - facet.bx) + facet.d0y * (py - facet.by)
    b1 = facet.d1x * (px - facet.cx) + facet.d1y * (py - facet.cy)
    b2 = 1.0 - b0 - b1
    iz = np.float32(b0 * facet.za + b1 * facet.zb + b2 * facet.zc)
    return iz, (b0 * facet.za / iz, b1 * facet.zb / iz, b2 * facet.zc / iz)


@jit
def _unspent(bits, spent, row, column, factor, iz):
    """Of a mask, the samples that light reaches at 1/z `iz`."""
    for j in range(factor):
        for i in range(factor):
            if iz <= spent[row * factor + j, column * factor + i]:
                bits &= ~(1 << (j * factor + i))
    return bits


@jit
def _place(first, link, depth, iz):
    """The fragment of a list before 1/z `iz`, and the one behind; -1: none."""
    previous, f = -1, first
    while f >= 0 and depth[f] > iz:
        previous = f
        f = link[f]
    return previous, f


@jit
def _adjoins(f, bits, iz, texture, mask, depth, owner, texture_of):
    """Whether fragment f and other samples `bits` at 1/z `iz` are parts of one surface."""
    if f < 0 or abs(depth[f] - iz) >= np.float32(SAME_DEPTH) * iz or mask[f] & bits:
        return False
    return texture_of[owner[f]] == texture


@jit
def collect(drawn, sheets, order, layers, factor):
    """List each pixel's translucent fragments, near to far, as far as light comes through.

    Fragments that are solid become the samples' surface. Once a sample's fragments let less than
    `SPENT` through, what is behind the last of them is left out, so that the many layers behind
    cost a depth test only; `order` front to back makes that early. Triangles of one texture that
    meet in a pixel at one depth are one fragment, which the first of them in `order` stands for.

    Args:
        order: [K] blended triangles.
        layers: empty over the solid surface; filled.
        factor: samples a side of one pixel, at most 8.

    Returns:
        Whether there was room for all; if not, nothing of the result is of use.
    """
    # Unpacked: a structure that calls in the inner loops were given would count its references.
    screen, triangles, uv, shade = drawn.screen, drawn.triangles, drawn.uv, drawn.shade
    texture_of, prints, textures = drawn.texture_of, drawn.prints, drawn.textures
    positions, sheer, magnification = sheets
    zbuf, ids, spent, head, link, mask, depth, alpha, owner = layers
    h, w = zbuf.shape
    n = 0
    left = np.ones((h, w), dtype=np.float32)  # light that a sample's fragments let through
    hidden = np.zeros(head.shape, dtype=np.float32)
    for row in range(hidden.shape[0]):
        for column in range(hidden.shape[1]):
            hidden[row, column] = farthest(zbuf, spent, row, column, factor)
    tiles = _tiles(hidden)
    tile = TILE * factor
    low = np.zeros(factor, dtype=np.int64)
    high = np.zeros(factor, dtype=np.int64)
    for place in range(order.shape[0]):
        t = order[place]
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        area = doubled_area(screen, a, b, c)
        if area == 0.0:
            continue
        bounds = box(screen, a, b, c, w, h)
        x_min, x_max, y_min, y_max = bounds
        if x_min >= x_max or y_min >= y_max:
            continue
        nearest = max(float(screen[a, 2]), float(screen[b, 2]), float(screen[c, 2]))
        if _behind(
            nearest, tiles, x_min // tile, (x_max - 1) // tile + 1, y_min // tile,
            (y_max - 1) // tile + 1,
        ):  # fmt: skip
            continue
        presence = 1.0
        if sheer[t]:
            presence = _presence(screen, positions, a, b, c, area, magnification)
            if presence == 0.0:
                continue
        facet = facet_of(screen, a, b, c, area)
        for row in range(y_min // factor, (y_max - 1) // factor + 1):
            first, last = _row_spans(facet, row, factor, bounds, low, high)
            if first >= last:
                continue
            for column in range(first // factor, (last - 1) // factor + 1):
                if nearest <= hidden[row, column]:
                    continue
                bits, count, sx, sy = _samples(facet, zbuf, row, column, factor, low, high)
                if bits == 0:
                    continue
                # Depth, alpha and later the colour are those of the middle of the samples.
                px = column * factor + sx / count + 0.5
                py = row * factor + sy / count + 0.5
                iz, weights = _point(facet, px, py)
                if iz <= hidden[row, column]:
                    continue
                bits = _unspent(bits, spent, row, column, factor, iz)
                if bits == 0:
                    continue
                u = mean(uv, 0, (a, b, c), weights)
                v = mean(uv, 1, (a, b, c), weights)
                cover = sample_alpha(textures, texture_of[t], prints[t], u, v)
                cover *= presence * mean(shade, 3, (a, b, c), weights)
                if cover < CLEAR_ALPHA:
                    continue
                solid = cover >= SOLID_ALPHA
                if not solid:
                    previous, f = _place(head[row, column], link, depth, iz)
                    # The neighbour's share of the same surface: one fragment of both.
                    same, texture = -1, texture_of[t]
                    if _adjoins(f, bits, iz, texture, mask, depth, owner, texture_of):
                        same = f
                    elif _adjoins(previous, bits, iz, texture, mask, depth, owner, texture_of):
                        same = previous
                    if same >= 0:
                        alpha[same] = _joint(mask[same], alpha[same], bits, cover)
                        mask[same] |= bits
                    elif n == link.shape[0]:
                        return False
                    else:
                        depth[n], alpha[n], owner[n], mask[n], link[n] = iz, cover, t, bits, f
                        if previous < 0:
                            head[row, column] = n
                        else:
                            link[previous] = n
                        n += 1
                done = solid
                for j in range(factor):
                    for i in range(factor):
                        bit = j * factor + i
                        if not (bits >> bit) & 1:
                            continue
                        y, x = row * factor + j, column * factor + i
                        if solid:
                            spent[y, x], ids[y, x] = iz, t
                            continue
                        left[y, x] *= np.float32(1.0 - cover)
                        if left[y, x] < SPENT:
                            at, left[y, x] = _spend(
                                head[row, column], bit, link, mask, depth, alpha
                            )
                            if at > spent[y, x]:
                                spent[y, x], done = at, True
                if done:
                    hidden[row, column] = farthest(zbuf, spent, row, column, factor)
    return True
