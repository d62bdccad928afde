"""Following many rays a few samples at a time, so that nothing behind a surface is computed.

Legend: L slots (rays followed at once), A samples a ray gets per batch, N samples of a batch,
R rays, S samples. Sums of optical depth run in float64, as in the reference.

A slot holds a ray until its transmittance falls below the early stop or it has no samples left;
then the next ray takes its place, so batches stay full. A slot's state is one row of integers
(ray, next index, samples of the last batch) and its optical depth.
"""

from __future__ import annotations

import math

import numpy as np

from renderer.compositing import MAX_OPTICAL_DEPTH
from renderer.cpu.jit import kernel
from renderer.cpu.marching import next_sample, span

SLOTS = 128
AHEAD = 8  # SLOTS · AHEAD samples make a chunk

_CAP = np.float32(MAX_OPTICAL_DEPTH)


@kernel
def fill_from_samples(t, offsets, following, last, slots, optical, ray_out, t_out):
    """The next batch of packed samples.

    Args:
        t, offsets: [S], [R + 1]. following: first ray not yet taken. last: end of the range.
        slots: [L, 3] int64; ray −1 means free. optical: [L] float64.
        ray_out, t_out: the batch, [L · A].

    Returns:
        Number of samples in the batch and the new ``following``; 0 when all rays are done.
    """
    count = 0
    for k in range(slots.shape[0]):
        if slots[k, 0] < 0:
            while following < last and offsets[following + 1] == offsets[following]:
                following += 1
            if following == last:
                slots[k, 2] = 0
                continue
            slots[k, 0] = following
            slots[k, 1] = offsets[following]
            optical[k] = 0
            following += 1
        r = slots[k, 0]
        start = slots[k, 1]
        stop = min(start + AHEAD, offsets[r + 1])
        for s in range(start, stop):
            ray_out[count] = r
            t_out[count] = t[s]
            count += 1
        slots[k, 2] = stop - start
    return count, following


@kernel
def weigh_batch(batch, offsets, step, stop, slots, optical, density, weights, visible):
    """Weights of a batch's samples at their packed places; frees the slots of finished rays.

    Args:
        batch: densities, [L · A].
        density, weights: of all samples, [S]; written as far as the ray is visible.
        visible: samples in sight of each ray, [R].
    """
    step = np.float32(step)
    at = 0
    for k in range(slots.shape[0]):
        taken = slots[k, 2]
        if taken == 0:
            continue
        r, start = slots[k, 0], slots[k, 1]
        depth = optical[k]
        end = start + taken
        finished = end == offsets[r + 1]
        for s in range(start, end):
            transmittance = np.float32(math.exp(-depth))
            if transmittance < stop:
                finished = True
                end = s
                break
            value = batch[at + s - start]
            tau = min(value * step, _CAP)
            density[s] = value
            weights[s] = transmittance * np.float32(-math.expm1(-tau))
            depth += tau
        at += taken
        slots[k, 1] = end
        optical[k] = depth
        if finished:
            visible[r] = end - offsets[r]
            slots[k, 0] = -1


@kernel(exact=True)
def fill_from_grid(
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
    following,
    last,
    slots,
    optical,
    spans,
    ray_out,
    t_out,
):
    """As :func:`fill_from_samples`, marching on the way; ``spans`` [L, 2] hold first and exit.

    A ray without any sample passes through a slot like any other, with none in its batch.
    """
    count = 0
    for k in range(slots.shape[0]):
        slots[k, 2] = 0
        while slots[k, 2] == 0:
            if slots[k, 0] < 0:
                if following == last:
                    break
                entry, leave = span(origins, directions, following, near, tiny)
                slots[k, 0] = following
                slots[k, 1] = 0
                optical[k] = 0
                spans[k, 0] = entry + jitter[following] * step
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
    batch,
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
    ray_out,
    t_out,
    weight_out,
):
    """Add a batch's weights to opacity and distance [R]; list the samples that need colour.

    Args:
        batch, ray, t: densities and places of the batch, [L · A].
        least: samples that weigh less get no colour of their own.
        ray_out, t_out, weight_out: the others, [L · A].

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
        for s in range(at, at + taken):
            transmittance = np.float32(math.exp(-depth))
            if transmittance < stop:
                finished = True
                break
            tau = min(batch[s] * step, _CAP)
            weight = transmittance * np.float32(-math.expm1(-tau))
            depth += tau
            opacity[r] += weight
            distance[r] += weight * t[s]
            if weight > least:
                ray_out[count] = r
                t_out[count] = t[s]
                weight_out[count] = weight
                count += 1
        at += taken
        optical[k] = depth
        if finished or math.exp(-depth) < stop:
            slots[k, 0] = -1
    return count


@kernel
def add_colors(color, ray, weight, total, mass):
    """Add weight × colour to ``total`` [R, 3] and weight to ``mass`` [R], for N samples."""
    for s in range(ray.shape[0]):
        r, w = ray[s], weight[s]
        mass[r] += w
        for k in range(3):
            total[r, k] += w * color[s, k]
