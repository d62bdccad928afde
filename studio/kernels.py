"""Numba kernels of the rasteriser; import this module only when something is drawn.

Legend: V vertices, T triangles, F fragments, H W size of the supersampled picture.

Coordinates are pixels of the supersampled picture, samples lie at pixel centres (+0.5). Depth is
kept as 1/z, which is linear on the screen, so the nearest fragment has the largest value.
"""

from __future__ import annotations

import math

import numba
import numpy as np

_SOLID_ALPHA = 250.0 / 255.0
_CLEAR_ALPHA = 2.0 / 255.0
jit = numba.njit(nogil=True, cache=True, fastmath=False, error_model="numpy")


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
def _level(uv, screen, tri, texture, table, n_levels):
    """Mip level (may be fractional) at which a texel covers about one sample."""
    a, b, c = tri[0], tri[1], tri[2]
    area = abs(
        (screen[b, 0] - screen[a, 0]) * (screen[c, 1] - screen[a, 1])
        - (screen[c, 0] - screen[a, 0]) * (screen[b, 1] - screen[a, 1])
    )
    area_uv = abs(
        (uv[b, 0] - uv[a, 0]) * (uv[c, 1] - uv[a, 1])
        - (uv[c, 0] - uv[a, 0]) * (uv[b, 1] - uv[a, 1])
    )
    texels = area_uv * table[texture, 0, 1] * table[texture, 0, 2]
    if texels <= 0.0 or area <= 0.0:
        return 0.0
    level = 0.5 * math.log2(texels / area)
    return min(max(level, 0.0), n_levels[texture] - 1.0)


@jit
def _bilinear(texels, offset, w, h, u, v, decode, out):
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
    i00 = offset + y0 * w + x0
    i01 = offset + y0 * w + x1
    i10 = offset + y1 * w + x0
    i11 = offset + y1 * w + x1
    w00 = (1 - tx) * (1 - ty)
    w01 = tx * (1 - ty)
    w10 = (1 - tx) * ty
    w11 = tx * ty
    for k in range(3):
        out[k] = (
            w00 * decode[texels[i00, k]]
            + w01 * decode[texels[i01, k]]
            + w10 * decode[texels[i10, k]]
            + w11 * decode[texels[i11, k]]
        )
    out[3] = (
        w00 * texels[i00, 3] + w01 * texels[i01, 3] + w10 * texels[i10, 3] + w11 * texels[i11, 3]
    ) / 255.0


@jit
def _sample(texels, table, texture, level, u, v, decode, out, spare):
    """Trilinear sample in linear light → out [4]."""
    k = int(level)
    t = level - k
    _bilinear(
        texels, table[texture, k, 0], table[texture, k, 1], table[texture, k, 2], u, v, decode, out
    )
    if t > 1e-3:
        k += 1
        _bilinear(
            texels,
            table[texture, k, 0],
            table[texture, k, 1],
            table[texture, k, 2],
            u,
            v,
            decode,
            spare,
        )
        for i in range(4):
            out[i] = (1 - t) * out[i] + t * spare[i]


@jit
def _alpha(texels, table, texture, level, u, v):
    k = int(level + 0.5)
    w = table[texture, k, 1]
    h = table[texture, k, 2]
    x = min(max(int(u * w), 0), w - 1)
    y = min(max(int((1.0 - v) * h), 0), h - 1)
    return texels[table[texture, k, 0] + y * w + x, 3] / 255.0


@jit
def _shade(b0, b1, b2, tri, paint, shade, out):
    """Turns the texture sample `out` [4] into lit linear colour (straight alpha), in place."""
    a, b, c = tri[0], tri[1], tri[2]
    cover = b0 * paint[a, 3] + b1 * paint[b, 3] + b2 * paint[c, 3]
    for k in range(3):
        colour = out[k]
        if cover > 0.0:
            over = (
                b0 * paint[a, k] * paint[a, 3]
                + b1 * paint[b, k] * paint[b, 3]
                + b2 * paint[c, k] * paint[c, 3]
            )
            colour = colour * (1.0 - cover) + over
        out[k] = colour * (b0 * shade[a, k] + b1 * shade[b, k] + b2 * shade[c, k])
    out[3] *= b0 * shade[a, 3] + b1 * shade[b, 3] + b2 * shade[c, 3]


@jit
def visible(
    screen, triangles, first, last, texture_of, uv, shade, texels, table, n_levels, cut, zbuf, ids
):
    """Draws triangles [first, last) into the depth buffer and the id buffer.

    Args:
        cut: alpha from which a texel is solid; 0 draws everything without looking at alpha.
        zbuf: [H, W] float32, 1/z of the nearest fragment so far (0: none), updated.
        ids: [H, W] int32, its triangle (-1: none), updated.
    """
    h, w = zbuf.shape
    for t in range(first, last):
        tri = triangles[t]
        a, b, c = tri[0], tri[1], tri[2]
        if screen[a, 2] <= 0 or screen[b, 2] <= 0 or screen[c, 2] <= 0:
            continue
        ax, ay = screen[a, 0], screen[a, 1]
        bx, by = screen[b, 0], screen[b, 1]
        cx, cy = screen[c, 0], screen[c, 1]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0.0:
            continue
        x_min = max(int(math.floor(min(ax, bx, cx))), 0)
        x_max = min(int(math.ceil(max(ax, bx, cx))), w)
        y_min = max(int(math.floor(min(ay, by, cy))), 0)
        y_max = min(int(math.ceil(max(ay, by, cy))), h)
        if x_min >= x_max or y_min >= y_max:
            continue
        level = 0.0
        if cut > 0.0:
            level = _level(uv, screen, tri, texture_of[t], table, n_levels)
        inv = 1.0 / area
        for y in range(y_min, y_max):
            py = y + 0.5
            for x in range(x_min, x_max):
                px = x + 0.5
                b0 = ((bx - px) * (cy - py) - (cx - px) * (by - py)) * inv
                b1 = ((cx - px) * (ay - py) - (ax - px) * (cy - py)) * inv
                b2 = 1.0 - b0 - b1
                if b0 < 0.0 or b1 < 0.0 or b2 < 0.0:
                    continue
                iz = b0 * screen[a, 2] + b1 * screen[b, 2] + b2 * screen[c, 2]
                if iz <= zbuf[y, x]:
                    continue
                if cut > 0.0:
                    q0 = b0 * screen[a, 2] / iz
                    q1 = b1 * screen[b, 2] / iz
                    q2 = b2 * screen[c, 2] / iz
                    u = q0 * uv[a, 0] + q1 * uv[b, 0] + q2 * uv[c, 0]
                    v = q0 * uv[a, 1] + q1 * uv[b, 1] + q2 * uv[c, 1]
                    fade = q0 * shade[a, 3] + q1 * shade[b, 3] + q2 * shade[c, 3]
                    if fade * _alpha(texels, table, texture_of[t], level, u, v) < cut:
                        continue
                zbuf[y, x] = iz
                ids[y, x] = t


@jit
def layers(
    screen,
    triangles,
    first,
    texture_of,
    uv,
    paint,
    shade,
    texels,
    table,
    n_levels,
    decode,
    zbuf,
    ids,
    head,
    link,
    depth,
    colour,
    owner,
):
    """Collects the translucent fragments in front of the solid ones, as a list per sample.

    Args:
        head: [H, W] int32, -1 at first; then the sample's newest fragment.
        link [F], depth [F] (1/z), colour [F, 4] (linear, straight alpha), owner [F] (triangle).

    Returns:
        The number of fragments met; when above F, the lists are incomplete: call again with room.
    """
    h, w = zbuf.shape
    room = link.shape[0]
    n = 0
    sample = np.zeros(4, dtype=np.float64)
    spare = np.zeros(4, dtype=np.float64)
    for t in range(first, triangles.shape[0]):
        tri = triangles[t]
        a, b, c = tri[0], tri[1], tri[2]
        if screen[a, 2] <= 0 or screen[b, 2] <= 0 or screen[c, 2] <= 0:
            continue
        ax, ay = screen[a, 0], screen[a, 1]
        bx, by = screen[b, 0], screen[b, 1]
        cx, cy = screen[c, 0], screen[c, 1]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0.0:
            continue
        x_min = max(int(math.floor(min(ax, bx, cx))), 0)
        x_max = min(int(math.ceil(max(ax, bx, cx))), w)
        y_min = max(int(math.floor(min(ay, by, cy))), 0)
        y_max = min(int(math.ceil(max(ay, by, cy))), h)
        if x_min >= x_max or y_min >= y_max:
            continue
        level = _level(uv, screen, tri, texture_of[t], table, n_levels)
        inv = 1.0 / area
        for y in range(y_min, y_max):
            py = y + 0.5
            for x in range(x_min, x_max):
                if ids[y, x] == t:
                    continue
                px = x + 0.5
                b0 = ((bx - px) * (cy - py) - (cx - px) * (by - py)) * inv
                b1 = ((cx - px) * (ay - py) - (ax - px) * (cy - py)) * inv
                b2 = 1.0 - b0 - b1
                if b0 < 0.0 or b1 < 0.0 or b2 < 0.0:
                    continue
                iz = b0 * screen[a, 2] + b1 * screen[b, 2] + b2 * screen[c, 2]
                if iz <= zbuf[y, x]:
                    continue
                q0 = b0 * screen[a, 2] / iz
                q1 = b1 * screen[b, 2] / iz
                q2 = b2 * screen[c, 2] / iz
                u = q0 * uv[a, 0] + q1 * uv[b, 0] + q2 * uv[c, 0]
                v = q0 * uv[a, 1] + q1 * uv[b, 1] + q2 * uv[c, 1]
                _sample(texels, table, texture_of[t], level, u, v, decode, sample, spare)
                if sample[3] < _CLEAR_ALPHA:
                    continue
                if n < room:
                    _shade(q0, q1, q2, tri, paint, shade, sample)
                    link[n] = head[y, x]
                    head[y, x] = n
                    depth[n] = iz
                    owner[n] = t
                    for k in range(4):
                        colour[n, k] = sample[k]
                n += 1
    return n


@jit
def resolve(
    screen,
    triangles,
    texture_of,
    uv,
    paint,
    shade,
    texels,
    table,
    n_levels,
    decode,
    ids,
    head,
    link,
    depth,
    colour,
    factor,
    out,
):
    """Shades the solid samples, lays the translucent ones over them far to near, and averages.

    Args:
        factor: samples a side of one output pixel.
        out: [H / factor, W / factor, 4] float32, premultiplied linear colour and alpha, set.
    """
    h, w = ids.shape
    sample = np.zeros(4, dtype=np.float64)
    spare = np.zeros(4, dtype=np.float64)
    total = np.zeros(4, dtype=np.float64)
    order = np.zeros(256, dtype=np.int64)
    share = 1.0 / (factor * factor)
    out[:] = 0.0
    for y in range(h):
        for x in range(w):
            t = ids[y, x]
            first = head[y, x]
            if t < 0 and first < 0:
                continue
            for k in range(4):
                total[k] = 0.0
            if t >= 0:
                tri = triangles[t]
                a, b, c = tri[0], tri[1], tri[2]
                px = x + 0.5
                py = y + 0.5
                ax, ay = screen[a, 0], screen[a, 1]
                bx, by = screen[b, 0], screen[b, 1]
                cx, cy = screen[c, 0], screen[c, 1]
                inv = 1.0 / ((bx - ax) * (cy - ay) - (cx - ax) * (by - ay))
                b0 = ((bx - px) * (cy - py) - (cx - px) * (by - py)) * inv
                b1 = ((cx - px) * (ay - py) - (ax - px) * (cy - py)) * inv
                b2 = 1.0 - b0 - b1
                iz = b0 * screen[a, 2] + b1 * screen[b, 2] + b2 * screen[c, 2]
                q0 = b0 * screen[a, 2] / iz
                q1 = b1 * screen[b, 2] / iz
                q2 = b2 * screen[c, 2] / iz
                u = q0 * uv[a, 0] + q1 * uv[b, 0] + q2 * uv[c, 0]
                v = q0 * uv[a, 1] + q1 * uv[b, 1] + q2 * uv[c, 1]
                level = _level(uv, screen, tri, texture_of[t], table, n_levels)
                _sample(texels, table, texture_of[t], level, u, v, decode, sample, spare)
                _shade(q0, q1, q2, tri, paint, shade, sample)
                for k in range(3):
                    total[k] = min(sample[k], 1.0)
                total[3] = 1.0
            n = 0
            f = first
            while f >= 0 and n < order.shape[0]:
                i = n
                while i > 0 and depth[order[i - 1]] > depth[f]:
                    order[i] = order[i - 1]
                    i -= 1
                order[i] = f
                n += 1
                f = link[f]
            for i in range(n):
                f = order[i]
                alpha = colour[f, 3]
                for k in range(3):
                    total[k] = total[k] * (1 - alpha) + min(colour[f, k], 1.0) * alpha
                total[3] = total[3] * (1 - alpha) + alpha
            for k in range(4):
                out[y // factor, x // factor, k] += total[k] * share
