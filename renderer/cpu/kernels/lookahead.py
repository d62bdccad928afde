"""Following many rays a few samples at a time, so that nothing behind a surface is computed.

Legend: L slots (rays followed at once), A samples a ray gets per batch, N samples, R rays, K hidden
width, E columns of the encoded density channels, D of the encoded colour channels. Sums of optical
depth run in float64, as in the reference.

A slot holds a ray until its transmittance falls below the early stop or it has no samples left;
then the next ray takes its place, so batches stay full.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from renderer.cpu.kernels.jit import kernel
from renderer.cpu.kernels.lanes import copy
from renderer.cpu.kernels.marching import next_sample, span
from renderer.samples import MAX_OPTICAL_DEPTH

SLOTS = 256
AHEAD = 4  # SLOTS · AHEAD samples make a chunk

_CAP = np.float32(MAX_OPTICAL_DEPTH)


class Slots(NamedTuple):
    """Rays that are followed at once.

    Attributes:
        ray: [L] int64; −1 means free.
        index: of the next sample on the ray's lattice, [L] int64.
        taken: samples in the last batch, [L] int64.
        optical: optical depth so far, [L] float64.
        first, leave: distances of the ray's first sample and of its exit from the box, [L] fp32.
    """

    ray: np.ndarray
    index: np.ndarray
    taken: np.ndarray
    optical: np.ndarray
    first: np.ndarray
    leave: np.ndarray

    @classmethod
    def free(cls) -> Slots:
        """``SLOTS`` slots without rays."""
        ray, index, taken = np.full((3, SLOTS), -1)
        return cls(ray, index, taken, np.empty(SLOTS), *np.empty((2, SLOTS), np.float32))


class Batch(NamedTuple):
    """Samples of one batch, slot after slot.

    Attributes:
        ray: [L · A] int64. t: distance along it, fp32.
        density, exponent: per world unit, and its logarithm, fp32.
    """

    ray: np.ndarray
    t: np.ndarray
    density: np.ndarray
    exponent: np.ndarray


class Chosen(NamedTuple):
    """Samples of a batch that need colour.

    Attributes:
        row: place in the batch, [L · A] int64.
        weight: contribution to the pixel. after: transmittance behind the sample. fp32.
    """

    row: np.ndarray
    weight: np.ndarray
    after: np.ndarray

    def part(self, start: int, stop: int) -> Chosen:
        """Those from ``start`` up to ``stop``."""
        return Chosen(*(values[start:stop] for values in self))


class Waiting(NamedTuple):
    """Single numbers of the samples that wait for their colour: those of Batch and of Chosen."""

    ray: np.ndarray
    t: np.ndarray
    density: np.ndarray
    exponent: np.ndarray
    weight: np.ndarray
    after: np.ndarray


@kernel(exact=True)
def fill_batch(march, order, following, slots, batch):
    """Set rays and distances of the next batch, marching on the way.

    Args:
        march: see :class:`renderer.cpu.kernels.marching.March`.
        order: the worker's rays as they shall be followed. following: how many were taken.

    Returns:
        Number of samples in the batch, 0 when all rays are done, and the new ``following``.
    """
    count = 0
    for k in range(slots.ray.shape[0]):
        slots.taken[k] = 0
        while slots.taken[k] == 0:
            if slots.ray[k] < 0:
                if following == order.shape[0]:
                    break
                slots.ray[k] = order[following]
                slots.index[k] = 0
                slots.optical[k] = 0
                slots.first[k], slots.leave[k] = span(march, order[following])
                following += 1
            r, index = slots.ray[k], slots.index[k]
            first, leave = slots.first[k], slots.leave[k]
            taken = 0
            while taken < AHEAD:
                index = next_sample(march, r, index, first, leave)
                if index < 0:
                    break
                batch.ray[count] = r
                batch.t[count] = first + np.float32(index) * march.step
                count += 1
                taken += 1
                index += 1
            slots.index[k] = march.steps if index < 0 else index
            slots.taken[k] = taken
            if taken == 0:
                slots.ray[k] = -1
    return count, following


@kernel
def show_batch(march, batch, slots, stop, least, opacity, distance, chosen):
    """Add a batch's weights to opacity and distance [R]; list the samples that need colour.

    Args:
        stop: samples behind a transmittance below this are ignored.
        least: samples that weigh no more get no colour of their own.
        chosen: set; those that need colour.

    Returns:
        How many need colour.
    """
    density, t = batch.density, batch.t
    step = np.float32(march.step)
    at = 0
    count = 0
    for k in range(slots.ray.shape[0]):
        taken = slots.taken[k]
        if taken == 0:
            continue
        r = slots.ray[k]
        depth = slots.optical[k]
        finished = slots.index[k] >= march.steps
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
                chosen.row[count] = s
                chosen.weight[count] = weight
                chosen.after[count] = transmittance
                count += 1
        at += taken
        slots.optical[k] = depth
        if finished or transmittance < stop:
            slots.ray[k] = -1
    return count


@kernel
def take_numbers(batch, chosen, at, waiting):
    """Copy the numbers of a batch's ``chosen`` samples to places ``at …`` of those waiting."""
    for n in range(chosen.row.shape[0]):
        row, place = chosen.row[n], at + n
        waiting.ray[place], waiting.t[place] = batch.ray[row], batch.t[row]
        waiting.density[place] = batch.density[row]
        waiting.exponent[place] = batch.exponent[row]
        waiting.weight[place], waiting.after[place] = chosen.weight[n], chosen.after[n]


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
