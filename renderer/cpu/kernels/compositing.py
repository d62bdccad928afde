"""Gradients of compositing, sample by sample from the back; see :mod:`renderer.compositing`.

Legend: R rays, N samples of a chunk.
"""

from __future__ import annotations

import numpy as np

from renderer.cpu.kernels.jit import kernel
from renderer.samples import MAX_OPTICAL_DEPTH

_CAP = np.float32(MAX_OPTICAL_DEPTH)


@kernel
def composite_backward(
    ray,
    t,
    density,
    weight,
    after,
    color,
    step,
    total_gradient,
    opacity_gradient,
    depth_gradient,
    behind,
    density_out,
    color_out,
):
    """Gradients to density [N] and colour [N, 3] from those to the sums over rays.

    With g the gradient to a weight: dτᵢ = Tᵢ₊₁·gᵢ − Σ_{j>i} wⱼ·gⱼ. The samples of a ray come in
    order; whoever calls goes from the last chunk to the first.

    Args:
        after: transmittance behind each sample, Tᵢ₊₁.
        total_gradient, opacity_gradient, depth_gradient: to Σ w·colour [R, 3], Σ w [R] and
            Σ w·t [R].
        behind: Σ wⱼ·gⱼ of the samples gone through so far, [R] float64; kept up to date.
    """
    step = np.float32(step)
    for s in range(ray.shape[0] - 1, -1, -1):
        r, w = ray[s], weight[s]
        red, green, blue = total_gradient[r, 0], total_gradient[r, 1], total_gradient[r, 2]
        color_out[s, 0] = w * red
        color_out[s, 1] = w * green
        color_out[s, 2] = w * blue
        g = red * color[s, 0] + green * color[s, 1] + blue * color[s, 2]
        g += opacity_gradient[r] + depth_gradient[r] * t[s]
        slope = np.float32(after[s] * g - behind[r]) * step
        # As torch.clamp: the bound itself passes the gradient on.
        density_out[s] = slope if density[s] * step <= _CAP else np.float32(0.0)
        behind[r] += w * g
