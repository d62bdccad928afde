"""Regularisers of fitting.

Legend: C channels, H W plane size, S points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from renderer.decoder import TriplaneDecoder
from renderer.field import query_density
from renderer.triplane import check_planes


def total_variation(planes: Tensor) -> Tensor:
    """Mean squared difference of neighbouring texels, both directions; scalar.

    Args:
        planes: [3, C, H, W].
    """
    check_planes(planes, batched=False)
    along_h = (planes[..., 1:, :] - planes[..., :-1, :]).square().mean()
    along_w = (planes[..., :, 1:] - planes[..., :, :-1]).square().mean()
    return along_h + along_w


def plane_regularisation(offset: Tensor, tv: float, l1: float, l2: float) -> Tensor:
    """tv · total variation + l1 · mean |offset| + l2 · mean offset²; scalar, differentiable.

    Args:
        offset: planes, or their difference from a reference, [3, C, H, W].
        tv, l1, l2: weights.
    """
    total = offset.new_zeros(())
    if tv:
        total = total + tv * total_variation(offset)
    if l1:
        total = total + l1 * offset.abs().mean()
    if l2:
        total = total + l2 * offset.square().mean()
    return total


def density_smoothness(
    planes: Tensor, decoder: TriplaneDecoder, points: Tensor, shift: Tensor
) -> Tensor:
    """Mean |σ(p) − σ(p + shift)| + 10⁻³ · mean |σ|; scalar.

    Args:
        points: [S, 3] in the box.
        shift: small displacements, [S, 3], world units.
    """
    density = query_density(planes, decoder, torch.cat([points, points + shift]))
    a, b = density.chunk(2)
    return (a - b).abs().mean() + 1e-3 * a.abs().mean()
