"""A head that stands elsewhere in its picture, brought to where the training portraits have it.

Legend: S side of the portrait, V tried placements.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from likeness.learned.regression import Regression, small_pixels
from likeness.portrait.portrait import Portrait

SCALES = tuple(1.15**n for n in range(-4, 5))
SHIFTS = tuple(0.06 * n for n in range(-4, 5))
GAIN = 0.85
"""A placement must lower the surprise by this factor to be taken over none at all."""


def placed(portrait: Portrait, scale: float, right: float, down: float) -> Portrait:
    """Return the picture scaled about its middle and shifted, in sides; white comes in."""
    matrix = torch.tensor([[1 / scale, 0, -2 * right / scale], [0, 1 / scale, -2 * down / scale]])
    stacked = torch.cat([1 - portrait.color, portrait.alpha[..., None]], dim=-1)
    grid = F.affine_grid(matrix[None], [1, 4, portrait.size, portrait.size], align_corners=False)
    moved = F.grid_sample(stacked.permute(2, 0, 1)[None], grid, align_corners=False)
    moved = moved[0].permute(1, 2, 0)
    return Portrait(1 - moved[..., :3], moved[..., 3], portrait.camera)


def find_placement(portrait: Portrait, regression: Regression) -> tuple[float, float, float]:
    """Return the scale, shift right and shift down that make a portrait most usual.

    All placements of a lattice are tried at the size of the regression's pictures, then smaller
    steps around the best. Portraits that are framed well already stay: (1, 0, 0).
    """
    small = portrait.resized(2 * _side(regression))
    as_it_is = _surprise(small, regression, (1.0, 0.0, 0.0))
    tried = list(itertools.product(SCALES, SHIFTS, SHIFTS))
    tried = _around_content(small, tried)
    best = min(tried, key=lambda p: _surprise(small, regression, p))
    for step in (0.5, 0.25):
        near = itertools.product(
            [best[0] * 1.15 ** (step * n) for n in (-1, 0, 1)],
            [best[1] + 0.06 * step * n for n in (-1, 0, 1)],
            [best[2] + 0.06 * step * n for n in (-1, 0, 1)],
        )
        best = min(near, key=lambda p: _surprise(small, regression, p))
    if _surprise(small, regression, best) > GAIN * as_it_is:
        return (1.0, 0.0, 0.0)
    return best


def _side(regression: Regression) -> int:
    return math.isqrt(len(regression.pixels.mean) // 4)


def _around_content(
    portrait: Portrait, tried: list[tuple[float, float, float]]
) -> list[tuple[float, float, float]]:
    """Measure the shifts from where the subject's middle comes to the picture's middle."""
    weight = portrait.alpha / portrait.alpha.sum().clamp(min=1e-6)
    axis = (torch.arange(portrait.size) + 0.5) / portrait.size - 0.5
    x, y = float((weight.sum(0) * axis).sum()), float((weight.sum(1) * axis).sum())
    return [(s, right - s * x, down - s * y) for s, right, down in tried]


def _surprise(
    portrait: Portrait, regression: Regression, placement: tuple[float, float, float]
) -> float:
    pixels: Tensor = small_pixels(placed(portrait, *placement))
    return float(regression.pixels.surprise(pixels[None])[0])
