"""Compositing per ray, forward and backward; the equations of :mod:`renderer.compositing`.

Legend: R rays, S samples. Sums of optical depth run in float64, as in the reference.
"""

from __future__ import annotations

import math

import numpy as np

from renderer.compositing import MAX_OPTICAL_DEPTH
from renderer.cpu.jit import kernel

_CAP = np.float32(MAX_OPTICAL_DEPTH)


@kernel
def keep_visible(t, weights, density, offsets, kept, first, last, ray_out, t_out, w_out, d_out):
    """Copy the samples in sight of rays ``first … last`` to their places ``kept`` [R + 1]."""
    for r in range(first, last):
        source = offsets[r]
        for target in range(kept[r], kept[r + 1]):
            ray_out[target] = r
            t_out[target] = t[source]
            w_out[target] = weights[source]
            d_out[target] = density[source]
            source += 1


@kernel
def accumulate(weights, color, t, offsets, first, last, total, opacity, depth):
    """Sums of a ray's weights times colour, one and distance: [R, 3], [R], [R]."""
    for r in range(first, last):
        red = green = blue = mass = distance = np.float32(0.0)
        for s in range(offsets[r], offsets[r + 1]):
            w = weights[s]
            red += w * color[s, 0]
            green += w * color[s, 1]
            blue += w * color[s, 2]
            mass += w
            distance += w * t[s]
        total[r, 0], total[r, 1], total[r, 2] = red, green, blue
        opacity[r] = mass
        depth[r] = distance


@kernel
def accumulate_backward(
    density,
    weights,
    color,
    t,
    offsets,
    visible,
    step,
    first,
    last,
    total_gradient,
    opacity_gradient,
    depth_gradient,
    density_out,
    color_out,
):
    """Gradients to density [S] and colour [S, 3] from those to the sums of :func:`accumulate`.

    With g the gradient to a weight: dτᵢ = Tᵢ₊₁·gᵢ − Σ_{j>i} wⱼ·gⱼ. Only the first ``visible`` [R]
    samples of a ray have gradients.
    """
    step = np.float32(step)
    for r in range(first, last):
        red, green, blue = total_gradient[r, 0], total_gradient[r, 1], total_gradient[r, 2]
        mass, distance = opacity_gradient[r], depth_gradient[r]
        start, end = offsets[r], offsets[r] + visible[r]
        behind = 0.0
        for s in range(start, end):
            w = weights[s]
            color_out[s, 0] = w * red
            color_out[s, 1] = w * green
            color_out[s, 2] = w * blue
            g = red * color[s, 0] + green * color[s, 1] + blue * color[s, 2]
            g += mass + distance * t[s]
            density_out[s] = g
            behind += w * g
        depth = 0.0
        for s in range(start, end):
            raw = density[s] * step
            depth += min(raw, _CAP)
            g = density_out[s]
            behind -= weights[s] * g
            slope = np.float32(math.exp(-depth) * g - behind) * step
            # As torch.clamp: the bound itself passes the gradient on.
            density_out[s] = slope if raw <= _CAP else np.float32(0.0)
        for s in range(end, offsets[r + 1]):
            density_out[s] = 0
            color_out[s, :] = 0
