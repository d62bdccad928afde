"""Compositing: densities and colours along rays to pixels.

Legend: R rays, S samples of all rays together (packed, see :mod:`renderer.samples`).

Equations (Max 1995): αᵢ = 1 − exp(−σᵢ·δ), Tᵢ = Π_{j<i} (1 − αⱼ), wᵢ = Tᵢ·αᵢ.
"""

from __future__ import annotations

import torch
from torch import Tensor

from renderer.samples import MAX_OPTICAL_DEPTH, Rendered, Samples


def composite_weights(density: Tensor, samples: Samples, stop: float = 1e-4) -> Tensor:
    """Contribution of each sample to its ray's pixel, [S].

    Args:
        density: σ per world unit, [S].
        samples: where the densities belong.
        stop: samples behind a transmittance below this contribute nothing.

    Returns:
        Weights in [0, 1]. Differentiable to density.
    """
    if density.shape != samples.t.shape:
        raise ValueError(f"density must be [S={len(samples)}], got {list(density.shape)}")
    if len(samples) == 0:
        return density
    # One running sum over all rays, less its value where the ray begins, is a sum per ray. In
    # float64 the subtraction costs no accuracy that fp32 has.
    tau = (density * samples.step).clamp(max=MAX_OPTICAL_DEPTH)
    running = tau.double().cumsum(0)
    before = running - tau
    first = samples.offsets[:-1].clamp(max=len(samples) - 1)
    before = before - before[first][samples.ray]
    transmittance = torch.exp(-before).to(density.dtype)
    weights = transmittance * -torch.expm1(-tau)
    return torch.where(transmittance < stop, torch.zeros_like(weights), weights)


def composite(
    density: Tensor,
    color: Tensor,
    samples: Samples,
    background: Tensor,
    stop: float = 1e-4,
) -> Rendered:
    """Composite samples front to back over a background.

    Args:
        density: [S] per world unit.
        color: [S, 3] in [0, 1].
        background: [3] or [R, 3], sRGB in [0, 1].
        stop: early stop, see :func:`composite_weights`.

    Returns:
        Color [R, 3], opacity [R], depth [R]; differentiable to density, colour and background.
        A ray without samples shows the background.
    """
    weights = composite_weights(density, samples, stop)
    rays = samples.offsets.shape[0] - 1
    opacity = weights.new_zeros(rays).index_add(0, samples.ray, weights)
    total = weights.new_zeros(rays, 3).index_add(0, samples.ray, weights[:, None] * color)
    distance = weights.new_zeros(rays).index_add(0, samples.ray, weights * samples.t)
    depth = distance / opacity.clamp(min=1e-8)
    return Rendered(total + (1 - opacity)[:, None] * background, opacity, depth)


def composite_mean_color(
    weights: Tensor, kept: Tensor, color: Tensor, samples: Samples, background: Tensor
) -> Rendered:
    """Composite with the colour of a ray's weightier samples standing for all of them.

    Args:
        weights: of all samples, from :func:`composite_weights`, [S].
        kept: which of them have a colour, [K] int64.
        color: theirs, [K, 3].
        background: [3] or [R, 3].

    Returns:
        Color [R, 3], opacity [R], depth [R].
    """
    rays = samples.offsets.shape[0] - 1
    opacity = weights.new_zeros(rays).index_add(0, samples.ray, weights)
    distance = weights.new_zeros(rays).index_add(0, samples.ray, weights * samples.t)
    ray, heavy = samples.ray[kept], weights[kept]
    mass = weights.new_zeros(rays).index_add(0, ray, heavy)
    total = weights.new_zeros(rays, 3).index_add(0, ray, heavy[:, None] * color)
    total = total * (opacity / mass.clamp(min=1e-8))[:, None]
    depth = distance / opacity.clamp(min=1e-8)
    return Rendered(total + (1 - opacity)[:, None] * background, opacity, depth)
