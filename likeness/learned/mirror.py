"""Left and right: mirrored triplanes, and halves that hold a symmetric or antisymmetric one.

Legend: N triplanes, P = 3 planes, C channels, H W plane size, h = W/2.

The mirror maps x to −x. It flips planes (x, y) and (x, z) along W, their x, and leaves (y, z) as
it is. An even triplane equals its mirror image, an odd one is the negative of it; half of the
first two planes says all about either, and an odd one has no (y, z) plane.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ROOT = 0.5**0.5


def mirror(planes: Tensor) -> Tensor:
    """Mirror triplanes [..., 3, C, H, W]."""
    return torch.cat([planes[..., :2, :, :, :].flip(-1), planes[..., 2:, :, :, :]], dim=-4)


def split(planes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the even and the odd part of triplanes [N, 3, C, H, W], folded.

    Halves are scaled by √2, so that lengths and products of the folded parts are those of the
    whole: folding is an orthogonal map.

    Returns:
        Even [N, 2·C·H·h + C·H·W] and odd [N, 2·C·H·h]; see :func:`unfold`.
    """
    half = _half(planes.shape[-1])
    left, right = planes[:, :2, ..., :half], planes[:, :2].flip(-1)[..., :half]
    even, odd = (left + right) * ROOT, (left - right) * ROOT
    return torch.cat([even.flatten(1), planes[:, 2].flatten(1)], dim=1), odd.flatten(1)


def unfold(even: Tensor, odd: Tensor, shape: Sequence[int]) -> Tensor:
    """Join folded parts to triplanes; the inverse of :func:`split`.

    Args:
        even, odd: [N, …] as :func:`split` returns them.
        shape: (3, C, H, W).

    Returns:
        [N, 3, C, H, W], differentiable.
    """
    _, c, h, w = shape
    halves = (-1, 2, c, h, _half(w))
    symmetric, last = even[:, : odd.shape[1]].view(halves), even[:, odd.shape[1] :]
    antisymmetric = odd.view(halves)
    left = (symmetric + antisymmetric) * ROOT
    right = (symmetric - antisymmetric).flip(-1) * ROOT
    return torch.cat([torch.cat([left, right], dim=-1), last.view(-1, 1, c, h, w)], dim=1)


def _half(width: int) -> int:
    if width % 2:
        raise ValueError(f"planes must be an even number of texels wide, got {width}")
    return width // 2
