"""Following many rays a few samples at a time, so that nothing behind a surface is computed.

Legend: L slots (rays followed at once), A samples a ray gets per batch, N samples, R rays, K hidden
width, E columns of the encoded density channels, D of the encoded colour channels. Sums of optical
depth run in float64, as in the reference.

A slot holds a ray until its transmittance falls below the early stop or it has no samples left;
then the next ray takes its place, so batches stay full. A slot's state is one row of integers
(ray, next index, samples of the last batch) and its optical depth.
"""

from __future__ import annotations

import math

import numpy as np

from renderer.cpu.kernels.jit import kernel
from renderer.cpu.kernels.lanes import copy
from renderer.cpu.kernels.marching import next_sample, span
from renderer.samples import MAX_OPTICAL_DEPTH

SLOTS = 256
AHEAD = 4  # SLOTS · AHEAD samples make a chunk

_CAP = np.float32(MAX_OPTICAL_DEPTH)


@kernel(exact=True)
def fill_batch(
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
    order,
    following,
    slots,
    optical,
    spans,
    ray_out,
    t_out,
):
    """The next batch of samples, marching on the way.

    Args:
        occupied … tiny: as :func:`renderer.cpu.kernels.marching.next_sample` takes them.
        order: the worker's rays as they shall be followed. following: how many were taken.
        slots: [L, 3] int64; ray −1 means free. optical: [L] float64. spans: [L, 2], the first
            sample's distance and the exit from the box.
        ray_out, t_out: the batch, [L · A].

    Returns:
        Number of samples in the batch, 0 when all rays are done, and the new ``following``.
    """
    count = 0
    for k in range(slots.shape[0]):
        slots[k, 2] = 0
        while slots[k, 2] == 0:
            if slots[k, 0] < 0:
                if following == order.shape[0]:
                    break
                ray = order[following]
                entry, leave = span(origins, directions, ray, near, tiny)
                slots[k, 0] = ray
                slots[k, 1] = 0
                optical[k] = 0
                spans[k, 0] = entry + jitter[ray] * step
                spans[k, 1] = leave
                following += 1
            r = slots[k, 0]
            first, leave = spans[k, 0], spans[k, 1]
            index = slots[k, 1]
            taken = 0
            while taken < AHEAD:
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
                ray_out[count] = r
                t_out[count] = first + np.float32(index) * step
                count += 1
                taken += 1
                index += 1
            slots[k, 1] = steps if index < 0 else index
            slots[k, 2] = taken
            if taken == 0:
                slots[k, 0] = -1
    return count, following


@kernel
def show_batch(
    density,
    ray,
    t,
    step,
    stop,
    steps,
    least,
    slots,
    optical,
    opacity,
    distance,
    row_out,
    weight_out,
    after_out,
):
    """Add a batch's weights to opacity and distance [R]; list the samples that need colour.

    Args:
        density, ray, t: of the batch, [L · A].
        least: samples that weigh no more get no colour of their own.
        row_out, weight_out, after_out: of the others: place in the batch, weight, transmittance
            behind, [L · A].

    Returns:
        How many need colour.
    """
    step = np.float32(step)
    at = 0
    count = 0
    for k in range(slots.shape[0]):
        taken = slots[k, 2]
        if taken == 0:
            continue
        r = slots[k, 0]
        depth = optical[k]
        finished = slots[k, 1] >= steps
        transmittance = np.float32(math.exp(-depth))
        for s in range(at, at + taken):
            if transmittance < stop:
                finished = True
                break
            tau = min(density[s] * step, _CAP)
            weight = transmittance * np.float32(-math.expm1(-tau))
            depth += tau
            transmittance = np.float32(math.exp(-depth))
            opacity[r] += weight
            distance[r] += weight * t[s]
            if weight > least:
                row_out[count] = s
                weight_out[count] = weight
                after_out[count] = transmittance
                count += 1
        at += taken
        optical[k] = depth
        if finished or transmittance < stop:
            slots[k, 0] = -1
    return count


@kernel
def take_numbers(
    rows, weight, after, ray, t, density, exponent, at,
    to_ray, to_t, to_density, to_exponent, to_weight, to_after,
):  # fmt: skip
    """What single numbers a batch's ``rows`` have, [L · A], to places ``at …`` of those waiting.

    ``weight`` and ``after`` are already those of ``rows``.
    """
    for n in range(rows.shape[0]):
        row, place = rows[n], at + n
        to_ray[place], to_t[place] = ray[row], t[row]
        to_density[place], to_exponent[place] = density[row], exponent[row]
        to_weight[place], to_after[place] = weight[n], after[n]


@kernel
def take_rows(source, rows, column, at, target):
    """``target[at:, column:]`` ← ``source[rows, column:]``, two-dimensional both."""
    width = source.shape[1]
    values, place = source.reshape(source.size), target.reshape(target.size)
    for n in range(rows.shape[0]):
        copy(values, rows[n] * width + column, place, (at + n) * width + column, width - column)


@kernel
def add_colors(color, ray, weight, total, mass):
    """Add weight × colour to ``total`` [R, 3] and weight to ``mass`` [R], for N samples."""
    for s in range(ray.shape[0]):
        r, w = ray[s], weight[s]
        mass[r] += w
        for k in range(3):
            total[r, k] += w * color[s, k]
