"""Marching rays through occupied cells: count, then write.

Legend: R rays, B triplanes, G cells along one side of the box, S samples. Arithmetic is rounded as
in :func:`renderer.marching.march`, so that both place the same samples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from renderer.cpu.kernels.jit import kernel

BLOCK = 8  # cells along one side of the blocks that are skipped whole


class March(NamedTuple):
    """Rays, the cells they cross and the lattice of samples along them.

    Attributes:
        occupied: cells of each triplane, [B, G, G, G] uint8.
        blocks: which ``BLOCK``³ cells hold an occupied one, [B, b, b, b] uint8.
        origins, directions: [R, 3] fp32.
        jitter: shift of each ray's samples in steps, [R] in [0, 1).
        rays_each: rays of one triplane; ray r belongs to triplane r // rays_each.
        steps: samples along the box's diagonal.
        step: their distance, world units, fp32.
        near: no sample lies closer to the origin, fp32.
        tiny: stands for components of directions that are smaller, fp32.
    """

    occupied: np.ndarray
    blocks: np.ndarray
    origins: np.ndarray
    directions: np.ndarray
    jitter: np.ndarray
    rays_each: int
    steps: int
    step: np.float32
    near: np.float32
    tiny: np.float32


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
def span(march, r):
    """First sample's and exit's distance of ray r through the box; no sample lies past the exit."""
    entry = np.float32(-np.inf)
    leave = np.float32(np.inf)
    tiny = march.tiny
    for axis in range(3):
        origin, d = march.origins[r, axis], march.directions[r, axis]
        if abs(d) < tiny:
            d = tiny
        a = (np.float32(-1.0) - origin) / d
        b = (np.float32(1.0) - origin) / d
        entry = max(entry, min(a, b))
        leave = min(leave, max(a, b))
    return max(entry, march.near) + march.jitter[r] * march.step, leave


@kernel(exact=True)
def next_sample(march, r, index, first, leave):
    """Smallest lattice index ≥ ``index`` whose point lies in an occupied cell; −1 without one.

    Args:
        first, leave: see :func:`span`.
    """
    occupied, blocks, step, tiny = march.occupied, march.blocks, march.step, march.tiny
    n = r // march.rays_each
    cells = occupied.shape[1]
    half = np.float32(cells / 2)
    ox, oy, oz = march.origins[r, 0], march.origins[r, 1], march.origins[r, 2]
    dx, dy, dz = march.directions[r, 0], march.directions[r, 1], march.directions[r, 2]
    one = np.float32(1.0)
    while index < march.steps:
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
def count_samples(march, start, stop, counts, begins):
    """Number of samples of rays ``start … stop`` into ``counts`` and their first index."""
    for r in range(start, stop):
        first, leave = span(march, r)
        count, index = 0, 0
        begins[r] = march.steps
        while True:
            index = next_sample(march, r, index, first, leave)
            if index < 0:
                break
            if count == 0:
                begins[r] = index
            count += 1
            index += 1
        counts[r] = count


@kernel(exact=True)
def write_samples(march, start, stop, offsets, begins, ray, t):
    """Write the samples of rays ``start … stop`` at ``offsets`` [R + 1]."""
    for r in range(start, stop):
        if offsets[r + 1] == offsets[r]:
            continue
        first, leave = span(march, r)
        index = begins[r]
        for s in range(offsets[r], offsets[r + 1]):
            index = next_sample(march, r, index, first, leave)
            ray[s] = r
            t[s] = first + np.float32(index) * march.step
            index += 1
