"""The optimiser step of a triplane in one pass over memory, see :mod:`fitting.plane_adam`.

Legend: C channels, H W plane size.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from renderer.cpu.kernels.jit import kernel
from renderer.cpu.threads import run_workers, shares, worker_count
from renderer.plane_step import step_constants


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
def step_rows(
    planes,
    grad,
    reference,
    mean,
    square,
    out,
    first,
    last,
    channels,
    rate,
    beta1,
    beta2,
    root,
    epsilon,
    along_h,
    along_w,
    l1,
    l2,
):
    """Rows ``first … last`` of all planes; arrays are [3, H, W·C].

    The new values go to ``out``, since neighbours' old ones are still being read.

    Args:
        reference: may be empty, [0, H, W·C].
        rate: learning rate / (1 − beta1ⁿ). root: 1 / sqrt(1 − beta2ⁿ).
        along_h, along_w: total variation's weight · 2 / number of differences.
        l1, l2: weight / number of values, and twice that.
    """
    one = np.float32(1.0)
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
        slope = grad[n, y]
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
        values, m, v, target = planes[n, y], mean[n, y], square[n, y], out[n, y]
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
    settings = [np.float32(x) for x in step_constants(planes.shape, group, weights, step)]
    workers = worker_count()
    parts = shares(count * height, workers)
    before, gradient, *moments, after = arrays
    run_workers(
        lambda k: step_rows(
            before, gradient, origin, *moments, after, *parts[k], channels, *settings
        ),
        workers,
    )
