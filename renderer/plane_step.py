"""Constants of one optimiser step of a triplane, as the kernels of every backend take them.

Legend: C channels, H W plane size.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class StepConstants(NamedTuple):
    """Constants of Adam and of the regularisers.

    Attributes:
        rate: learning rate / (1 − beta1ⁿ). root: 1 / sqrt(1 − beta2ⁿ).
        along_h, along_w: total variation's weight · 2 / number of differences.
        l1, l2: weight / number of values, and twice that.
    """

    rate: float
    beta1: float
    beta2: float
    root: float
    epsilon: float
    along_h: float
    along_w: float
    l1: float
    l2: float


def step_constants(
    shape: tuple[int, ...], group: dict, weights: tuple[float, float, float], step: int
) -> StepConstants:
    """Constants of step n = ``step`` of planes [3, H, W, C]; see :class:`StepConstants`."""
    count, height, width, channels = shape
    tv, l1, l2 = weights
    beta1, beta2 = group["betas"]
    values = count * height * width * channels
    # A plane of one texel's height (or width) has no differences along it.
    down = count * channels * max(height - 1, 1) * width
    right = count * channels * height * max(width - 1, 1)
    return StepConstants(
        group["lr"] / (1 - beta1**step),
        beta1,
        beta2,
        1 / math.sqrt(1 - beta2**step),
        group["eps"],
        tv * 2 / down,
        tv * 2 / right,
        l1 / values,
        l2 * 2 / values,
    )
