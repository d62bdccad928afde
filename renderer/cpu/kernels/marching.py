"""Marching rays through occupied cells: count, then write.

Legend: R rays, G cells along one side of the box, S samples. Arithmetic is rounded as in
:func:`renderer.marching.march`, so that both place the same samples.
"""

from __future__ import annotations

import numpy as np

from renderer.cpu.kernels.jit import kernel

BLOCK = 8  # cells along one side of the blocks that are skipped whole


@kernel(exact=True)
def block_occupancy(occupied, blocks):
    """Return which blocks of ``BLOCK``³ cells hold an occupied one: [B, G, G, G] → [B, b, b, b]."""
    blocks[:] = 0
    size = occupied.shape[1]
    for n in range(occupied.shape[0]):
        for i in range(size):
            for j in range(size):
                row = occupied[n, i, j]
                target = blocks[n, i // BLOCK, j // BLOCK]
                for k in range(size):
                    if row[k]:
                        target[k // BLOCK] = 1


@kernel(exact=True)
def _block_exit(block, cells, origin, inverse):
    """Distance at which a ray leaves a block along one axis."""
    scale = np.float32(2.0) / np.float32(cells)
    low = np.float32(block * BLOCK) * scale - np.float32(1.0)
    high = np.float32((block + 1) * BLOCK) * scale - np.float32(1.0)
    return max((low - origin) * inverse, (high - origin) * inverse)


@kernel(exact=True)
def span(origins, directions, r, near, tiny):
    """Entry and exit distance of one ray through the box; exit < entry for a miss."""
    entry = np.float32(-np.inf)
    leave = np.float32(np.inf)
    for axis in range(3):
        d = directions[r, axis]
        if abs(d) < tiny:
            d = tiny
        a = (np.float32(-1.0) - origins[r, axis]) / d
        b = (np.float32(1.0) - origins[r, axis]) / d
        entry = max(entry, min(a, b))
        leave = min(leave, max(a, b))
    return max(entry, near), leave


@kernel(exact=True)
def next_sample(
    occupied, blocks, origins, directions, r, n, index, steps, first, leave, step, tiny
):
    """Smallest lattice index ≥ ``index`` whose point lies in an occupied cell; −1 without one."""
    cells = occupied.shape[1]
    half = np.float32(cells / 2)
    ox, oy, oz = origins[r, 0], origins[r, 1], origins[r, 2]
    dx, dy, dz = directions[r, 0], directions[r, 1], directions[r, 2]
    one = np.float32(1.0)
    while index < steps:
        t = first + np.float32(index) * step
        if not t < leave:
            return -1
        i = min(max(np.int64((ox + t * dx + one) * half), 0), cells - 1)
        j = min(max(np.int64((oy + t * dy + one) * half), 0), cells - 1)
        k = min(max(np.int64((oz + t * dz + one) * half), 0), cells - 1)
        if occupied[n, i, j, k]:
            return index
        index += 1
        if not blocks[n, i // BLOCK, j // BLOCK, k // BLOCK]:
            sx = dx if abs(dx) >= tiny else tiny
            sy = dy if abs(dy) >= tiny else tiny
            sz = dz if abs(dz) >= tiny else tiny
            out = min(
                _block_exit(i // BLOCK, cells, ox, one / sx),
                _block_exit(j // BLOCK, cells, oy, one / sy),
                _block_exit(k // BLOCK, cells, oz, one / sz),
            )
            # One step short of the exit: rounding may not carry a sample over the border.
            index = max(index, np.int64((out - first) / step) - 1)
    return -1


@kernel(exact=True)
def count_samples(
    occupied,
    blocks,
    origins,
    directions,
    jitter,
    rays_each,
    steps,
    step,
    near,
    tiny,
    start,
    stop,
    counts,
    begins,
):
    """Number of samples of rays ``start … stop`` into ``counts`` and their first index."""
    for r in range(start, stop):
        entry, leave = span(origins, directions, r, near, tiny)
        first = entry + jitter[r] * step
        count, index = 0, 0
        begins[r] = steps
        while True:
            index = next_sample(
                occupied,
                blocks,
                origins,
                directions,
                r,
                r // rays_each,
                index,
                steps,
                first,
                leave,
                step,
                tiny,
            )
            if index < 0:
                break
            if count == 0:
                begins[r] = index
            count += 1
            index += 1
        counts[r] = count


@kernel(exact=True)
def write_samples(
    occupied,
    blocks,
    origins,
    directions,
    jitter,
    rays_each,
    steps,
    step,
    near,
    tiny,
    start,
    stop,
    offsets,
    begins,
    ray,
    t,
):
    """Write the samples of rays ``start … stop`` at ``offsets`` [R + 1]."""
    for r in range(start, stop):
        if offsets[r + 1] == offsets[r]:
            continue
        entry, leave = span(origins, directions, r, near, tiny)
        first = entry + jitter[r] * step
        index = begins[r]
        for s in range(offsets[r], offsets[r + 1]):
            index = next_sample(
                occupied,
                blocks,
                origins,
                directions,
                r,
                r // rays_each,
                index,
                steps,
                first,
                leave,
                step,
                tiny,
            )
            ray[s] = r
            t[s] = first + np.float32(index) * step
            index += 1
