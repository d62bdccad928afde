"""The optimiser step of a triplane in one pass over memory, see :mod:`fitting.plane_adam`.

Legend: C channels, H W plane size.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from renderer.cpu.kernels.jit import kernel
from renderer.cpu.threads import run_workers, shares, worker_count
from renderer.plane_step import StepConstants, step_constants


class Arrays(NamedTuple):
    """One step's arrays, [3, H, W·C] each.

    Attributes:
        reference: what the regularisers measure from; may be empty, [0, H, W·C].
        mean, square: Adam's moments; changed in place.
        out: the new values, since neighbours' old ones are still being read.
    """

    planes: np.ndarray
    grad: np.ndarray
    reference: np.ndarray
    mean: np.ndarray
    square: np.ndarray
    out: np.ndarray


@kernel
def _offsets(planes, reference, n, y, out):
    """Row ``y`` of plane ``n`` minus the reference, into ``out`` [W·C]."""
    row = planes[n, y]
    if reference.shape[0]:
        other = reference[n, y]
        for k in range(out.shape[0]):
            out[k] = row[k] - other[k]
    else:
        for k in range(out.shape[0]):
            out[k] = row[k]


@kernel
def step_rows(arrays, constants, first, last, channels):
    """Step rows ``first … last`` of all planes; see :class:`Arrays`, :class:`StepConstants`."""
    one = np.float32(1.0)
    planes, reference = arrays.planes, arrays.reference
    rate, beta1, beta2, root, epsilon, along_h, along_w, l1, l2 = constants
    height, width = planes.shape[1], planes.shape[2]
    rows = np.empty((3, width), np.float32)
    g = np.empty(width, np.float32)
    for row in range(first, last):
        n, y = row // height, row % height
        above, here, below = rows[(y + 2) % 3], rows[y % 3], rows[(y + 1) % 3]
        if row == first or y == 0:
            _offsets(planes, reference, n, y, here)
            if y > 0:
                _offsets(planes, reference, n, y - 1, above)
        slope = arrays.grad[n, y]
        for k in range(width):
            g[k] = slope[k] + l1 * np.sign(here[k]) + l2 * here[k]
        if y > 0:
            for k in range(width):
                g[k] += along_h * (here[k] - above[k])
        if y + 1 < height:
            _offsets(planes, reference, n, y + 1, below)
            for k in range(width):
                g[k] += along_h * (here[k] - below[k])
        right_g, right = g[channels:], here[channels:]
        for k in range(width - channels):
            right_g[k] += along_w * (right[k] - here[k])
        for k in range(width - channels):
            g[k] += along_w * (here[k] - right[k])
        values, target = planes[n, y], arrays.out[n, y]
        m, v = arrays.mean[n, y], arrays.square[n, y]
        for k in range(width):
            average = beta1 * m[k] + (one - beta1) * g[k]
            power = beta2 * v[k] + (one - beta2) * g[k] * g[k]
            m[k] = average
            v[k] = power
            moved = values[k] - rate * average / (np.sqrt(power) * root + epsilon)
            target[k] = min(max(moved, -one), one)


def step_planes(
    planes: Tensor,
    grad: Tensor,
    reference: Tensor | None,
    mean: Tensor,
    square: Tensor,
    out: Tensor,
    group: dict,
    weights: tuple[float, float, float],
    step: int,
) -> None:
    """One step of tensors [3, H, W, C] fp32; see :func:`step_rows`.

    Args:
        group: Adam's lr, betas and eps.
        weights: of total variation, L1 and L2.
        step: 1 for the first.
    """
    count, height, width, channels = planes.shape
    arrays = [t.numpy().reshape(count, height, -1) for t in (planes, grad, mean, square, out)]
    origin = (
        np.empty((0, height, width * channels), np.float32)
        if reference is None
        else reference.numpy().reshape(count, height, -1)
    )
    before, gradient, *others = arrays
    given = Arrays(before, gradient, origin, *others)
    found = step_constants(planes.shape, group, weights, step)
    constants = StepConstants(*(np.float32(x) for x in found))
    workers = worker_count()
    parts = shares(count * height, workers)
    run_workers(lambda k: step_rows(given, constants, *parts[k], channels), workers)
