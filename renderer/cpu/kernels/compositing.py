"""Gradients of compositing, sample by sample from the back; see :mod:`renderer.compositing`.

Legend: R rays, N samples of a chunk.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from renderer.cpu.kernels.jit import kernel
from renderer.samples import MAX_OPTICAL_DEPTH

_CAP = np.float32(MAX_OPTICAL_DEPTH)


class Composited(NamedTuple):
    """Samples as they were composited, those of a ray in order.

    Attributes:
        ray: [N] int64. t: distance along it. density: per world unit. [N]
        weight: contribution to the pixel. after: transmittance behind the sample, Tᵢ₊₁. [N]
        color: [N, 3].
    """

    ray: np.ndarray
    t: np.ndarray
    density: np.ndarray
    weight: np.ndarray
    after: np.ndarray
    color: np.ndarray


class SumGradients(NamedTuple):
    """Gradients to the sums over rays: Σ w·colour [R, 3], Σ w [R] and Σ w·t [R]."""

    total: np.ndarray
    opacity: np.ndarray
    distance: np.ndarray


@kernel
def composite_backward(samples, step, incoming, behind, density_out, color_out):
    """Gradients to density [N] and colour [N, 3] from those to the sums over rays.

    With g the gradient to a weight: dτᵢ = Tᵢ₊₁·gᵢ − Σ_{j>i} wⱼ·gⱼ. Whoever calls goes from the last
    chunk to the first.

    Args:
        behind: Σ wⱼ·gⱼ of the samples gone through so far, [R] float64; kept up to date.
    """
    step = np.float32(step)
    color, density, total = samples.color, samples.density, incoming.total
    for s in range(samples.ray.shape[0] - 1, -1, -1):
        r, w = samples.ray[s], samples.weight[s]
        red, green, blue = total[r, 0], total[r, 1], total[r, 2]
        color_out[s, 0] = w * red
        color_out[s, 1] = w * green
        color_out[s, 2] = w * blue
        g = red * color[s, 0] + green * color[s, 1] + blue * color[s, 2]
        g += incoming.opacity[r] + incoming.distance[r] * samples.t[s]
        slope = np.float32(samples.after[s] * g - behind[r]) * step
        # As torch.clamp: the bound itself passes the gradient on.
        density_out[s] = slope if density[s] * step <= _CAP else np.float32(0.0)
        behind[r] += w * g
