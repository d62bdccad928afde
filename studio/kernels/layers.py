"""Translucent fragments in front of the solid surface, sorted per sample."""

from __future__ import annotations

import numpy as np

from studio.kernels.jit import jit
from studio.kernels.sampling import sample_alpha
from studio.kernels.surface import box, doubled_area, planes, span

SOLID_ALPHA = 250.0 / 255.0
CLEAR_ALPHA = 2.0 / 255.0
SPENT = 1.0 / 512.0  # what lies behind this transmittance is not drawn


@jit
def collect(
    screen, triangles, order, texture_of, uv, shade, texels, table, levels, zbuf, ids,
    head, link, depth, alpha, owner,
):  # fmt: skip
    """Lists each sample's translucent fragments, near to far, as far as light comes through.

    Fragments that are solid become the sample's surface. Once a sample's fragments let less than
    `SPENT` through, the depth buffer moves up to the last of them, so that the many layers behind
    cost a depth test only; `order` front to back makes that early, the result is the same for any.

    Args:
        order: [K] blended triangles.
        zbuf, ids: the solid surface, updated.
        head: [H, W] int32, -1 at first; then the sample's nearest fragment.
        link [F], depth [F] (1/z), alpha [F], owner [F] (triangle): the lists.

    Returns:
        Whether F was enough; if not, nothing of the result is of use.
    """
    h, w = zbuf.shape
    room = link.shape[0]
    n = 0
    free = -1
    for place in range(order.shape[0]):
        t = order[place]
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        area = doubled_area(screen, a, b, c)
        if area == 0.0:
            continue
        x_min, x_max, y_min, y_max = box(screen, a, b, c, w, h)
        if x_min >= x_max or y_min >= y_max:
            continue
        d0x, d0y, d1x, d1y = planes(screen, a, b, c, 1.0 / area)
        za, zb, zc = float(screen[a, 2]), float(screen[b, 2]), float(screen[c, 2])
        bx, by = float(screen[b, 0]), float(screen[b, 1])
        cx, cy = float(screen[c, 0]), float(screen[c, 1])
        for y in range(y_min, y_max):
            py = y + 0.5
            r0 = d0y * (py - by) + d0x * (0.5 - bx)
            r1 = d1y * (py - cy) + d1x * (0.5 - cx)
            low, high = span(r0, d0x, x_min, x_max)
            low, high = span(r1, d1x, low, high)
            low, high = span(1.0 - r0 - r1, -d0x - d1x, low, high)
            for x in range(low, high):
                b0 = r0 + d0x * x
                b1 = r1 + d1x * x
                b2 = 1.0 - b0 - b1
                iz = np.float32(b0 * za + b1 * zb + b2 * zc)
                if iz <= zbuf[y, x]:
                    continue
                q0 = b0 * za / iz
                q1 = b1 * zb / iz
                q2 = b2 * zc / iz
                u = q0 * uv[a, 0] + q1 * uv[b, 0] + q2 * uv[c, 0]
                v = q0 * uv[a, 1] + q1 * uv[b, 1] + q2 * uv[c, 1]
                cover = sample_alpha(texels, table, texture_of[t], levels[t], u, v)
                cover *= q0 * shade[a, 3] + q1 * shade[b, 3] + q2 * shade[c, 3]
                if cover < CLEAR_ALPHA:
                    continue
                through = 1.0
                previous = -1
                f = head[y, x]
                while f >= 0 and depth[f] > iz:
                    through *= 1.0 - alpha[f]
                    previous = f
                    f = link[f]
                if cover >= SOLID_ALPHA:
                    zbuf[y, x] = iz
                    ids[y, x] = t
                    last = previous
                    dropped = f
                else:
                    if free >= 0:
                        new = free
                        free = link[new]
                    elif n < room:
                        new = n
                        n += 1
                    else:
                        return False
                    depth[new] = iz
                    alpha[new] = cover
                    owner[new] = t
                    link[new] = f
                    if previous < 0:
                        head[y, x] = new
                    else:
                        link[previous] = new
                    through *= 1.0 - alpha[new]
                    last = new
                    dropped = f
                    while through >= SPENT and dropped >= 0:
                        through *= 1.0 - alpha[dropped]
                        last = dropped
                        dropped = link[dropped]
                    if through >= SPENT:
                        continue
                    zbuf[y, x] = depth[last]
                # Fragments behind `last` are free again.
                if last < 0:
                    head[y, x] = -1
                else:
                    link[last] = -1
                while dropped >= 0:
                    following = link[dropped]
                    link[dropped] = free
                    free = dropped
                    dropped = following
    return True
