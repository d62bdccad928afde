"""Translucent fragments in front of the solid surface, sorted per pixel.

A fragment is one triangle's share of one pixel: a mask of the pixel's samples, one depth and one
alpha (Carpenter 1984, "The A-buffer").
"""

from __future__ import annotations

import math

import numpy as np

from studio.drawing.kernels.jit import jit
from studio.drawing.kernels.surface import box, doubled_area, planes, span
from studio.drawing.kernels.texture_lookup import sample_alpha

SOLID_ALPHA = 250.0 / 255.0
CLEAR_ALPHA = 4.0 / 255.0
SPENT = 1.0 / 128.0  # what lies behind this transmittance is not drawn
# Sheer sheets fade in between these cosines, or these heights of a triangle in samples.
EDGE_ON, TURNED = 0.03, 0.33
THIN, THICK = 0.5, 2.5
TILE = 8  # pixels a side of the blocks in which hidden triangles are skipped
SAME_DEPTH = 2e-3  # relative; fragments of one texture this close are parts of one surface


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
def collect(
    screen, positions, sheer, magnification, triangles, order, texture_of, uv, shade, texels,
    table, prints, factor, zbuf, ids, spent, head, link, mask, depth, alpha, owner,
):  # fmt: skip
    """Lists each pixel's translucent fragments, near to far, as far as light comes through.

    Fragments that are solid become the samples' surface. Once a sample's fragments let less than
    `SPENT` through, what is behind the last of them is left out, so that the many layers behind
    cost a depth test only; `order` front to back makes that early. Triangles of one texture that
    meet in a pixel at one depth are one fragment, which the first of them in `order` stands for.

    Args:
        positions: [V, 3] in the world; sheer: [T] whether a triangle fades where seen edge-on.
        magnification: samples² on the screen of unit area at unit distance.
        order: [K] blended triangles.
        prints: [T, 4] footprints of a pixel.
        factor: samples a side of one pixel, at most 8.
        zbuf: [H, W] float32, 1/z of the samples' solid surface.
        ids: [H, W] int32, its triangle, updated.
        spent: [H, W] float32, 0 at first; then 1/z behind which a sample's fragments don't count.
        head: [H / factor, W / factor] int32, -1 at first; then the pixel's nearest fragment.
        link [F], mask [F] (int64, bit y · factor + x of each sample), depth [F] (1/z), alpha [F],
            owner [F] (triangle): the lists.

    Returns:
        Whether F was enough; if not, nothing of the result is of use.
    """
    h, w = zbuf.shape
    room = link.shape[0]
    n = 0
    left = np.ones((h, w), dtype=np.float32)  # light that a sample's fragments let through
    hidden = np.zeros(head.shape, dtype=np.float32)
    for row in range(head.shape[0]):
        for column in range(head.shape[1]):
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
        x_min, x_max, y_min, y_max = box(screen, a, b, c, w, h)
        if x_min >= x_max or y_min >= y_max:
            continue
        za, zb, zc = float(screen[a, 2]), float(screen[b, 2]), float(screen[c, 2])
        nearest = max(za, zb, zc)
        if _behind(
            nearest, tiles, x_min // tile, (x_max - 1) // tile + 1, y_min // tile,
            (y_max - 1) // tile + 1,
        ):  # fmt: skip
            continue
        d0x, d0y, d1x, d1y = planes(screen, a, b, c, 1.0 / area)
        bx, by = float(screen[b, 0]), float(screen[b, 1])
        cx, cy = float(screen[c, 0]), float(screen[c, 1])
        dzx = d0x * (za - zc) + d1x * (zb - zc)
        presence = 1.0
        if sheer[t]:
            scale = magnification * (za * zb * zc) ** (2.0 / 3.0)
            cosine = abs(area) / max(scale * _spread(positions, a, b, c), 1e-30)
            turned = (cosine - EDGE_ON) / (TURNED - EDGE_ON)
            if turned < 1.0:
                thick = (abs(area) / _longest(screen, a, b, c) - THIN) / (THICK - THIN)
                presence = min(max(turned, thick, 0.0), 1.0)
            if presence == 0.0:
                continue
        for row in range(y_min // factor, (y_max - 1) // factor + 1):
            first, last = w, 0
            for j in range(factor):
                y = row * factor + j
                low[j], high[j] = 0, 0
                if y_min <= y < y_max:
                    py = y + 0.5
                    r0 = d0y * (py - by) + d0x * (0.5 - bx)
                    r1 = d1y * (py - cy) + d1x * (0.5 - cx)
                    start, end = span(r0, d0x, x_min, x_max)
                    start, end = span(r1, d1x, start, end)
                    start, end = span(1.0 - r0 - r1, -d0x - d1x, start, end)
                    if start < end:
                        low[j], high[j] = start, end
                        first, last = min(first, start), max(last, end)
            if first >= last:
                continue
            for column in range(first // factor, (last - 1) // factor + 1):
                if nearest <= hidden[row, column]:
                    continue
                bits, count, sx, sy = 0, 0, 0, 0
                for j in range(factor):
                    y = row * factor + j
                    r0 = d0y * (y + 0.5 - by) + d0x * (0.5 - bx)
                    r1 = d1y * (y + 0.5 - cy) + d1x * (0.5 - cx)
                    z0 = zc + r0 * (za - zc) + r1 * (zb - zc)
                    for i in range(factor):
                        x = column * factor + i
                        if low[j] <= x < high[j] and np.float32(z0 + dzx * x) > zbuf[y, x]:
                            bits |= 1 << (j * factor + i)
                            count += 1
                            sx += i
                            sy += j
                if bits == 0:
                    continue
                # Depth, alpha and later the colour are those of the middle of the samples.
                px = column * factor + sx / count + 0.5
                py = row * factor + sy / count + 0.5
                b0 = d0x * (px - bx) + d0y * (py - by)
                b1 = d1x * (px - cx) + d1y * (py - cy)
                b2 = 1.0 - b0 - b1
                iz = np.float32(b0 * za + b1 * zb + b2 * zc)
                if iz <= hidden[row, column]:
                    continue
                for j in range(factor):
                    for i in range(factor):
                        if iz <= spent[row * factor + j, column * factor + i]:
                            bits &= ~(1 << (j * factor + i))
                if bits == 0:
                    continue
                q0 = b0 * za / iz
                q1 = b1 * zb / iz
                q2 = b2 * zc / iz
                u = q0 * uv[a, 0] + q1 * uv[b, 0] + q2 * uv[c, 0]
                v = q0 * uv[a, 1] + q1 * uv[b, 1] + q2 * uv[c, 1]
                cover = sample_alpha(texels, table, texture_of[t], prints[t], u, v)
                cover *= presence * (q0 * shade[a, 3] + q1 * shade[b, 3] + q2 * shade[c, 3])
                if cover < CLEAR_ALPHA:
                    continue
                done = False
                if cover >= SOLID_ALPHA:
                    for j in range(factor):
                        for i in range(factor):
                            if (bits >> (j * factor + i)) & 1:
                                y, x = row * factor + j, column * factor + i
                                spent[y, x] = iz
                                ids[y, x] = t
                    done = True
                else:
                    previous = -1
                    f = head[row, column]
                    while f >= 0 and depth[f] > iz:
                        previous = f
                        f = link[f]
                    # The neighbour's share of the same surface: one fragment of both.
                    same = -1
                    slack = np.float32(SAME_DEPTH) * iz
                    if f >= 0 and iz - depth[f] < slack and not mask[f] & bits:
                        if texture_of[owner[f]] == texture_of[t]:
                            same = f
                    if same < 0 and previous >= 0 and depth[previous] - iz < slack:
                        if not mask[previous] & bits:
                            if texture_of[owner[previous]] == texture_of[t]:
                                same = previous
                    if same >= 0:
                        alpha[same] = _joint(mask[same], alpha[same], bits, cover)
                        mask[same] |= bits
                    elif n < room:
                        depth[n] = iz
                        alpha[n] = cover
                        owner[n] = t
                        mask[n] = bits
                        link[n] = f
                        if previous < 0:
                            head[row, column] = n
                        else:
                            link[previous] = n
                        n += 1
                    else:
                        return False
                    for j in range(factor):
                        for i in range(factor):
                            bit = j * factor + i
                            if not (bits >> bit) & 1:
                                continue
                            y, x = row * factor + j, column * factor + i
                            left[y, x] *= np.float32(1.0 - cover)
                            if left[y, x] < SPENT:
                                at, left[y, x] = _spend(
                                    head[row, column], bit, link, mask, depth, alpha
                                )
                                if at > spent[y, x]:
                                    spent[y, x] = at
                                    done = True
                if done:
                    hidden[row, column] = farthest(zbuf, spent, row, column, factor)
    return True
