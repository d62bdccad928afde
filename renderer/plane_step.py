"""Constants of one optimiser step of a triplane, as the kernels of every backend take them.

Legend: C channels, H W plane size.
"""

from __future__ import annotations

import math


def step_constants(
    shape: tuple[int, ...], group: dict, weights: tuple[float, float, float], step: int
) -> list[float]:
    """rate, beta1, beta2, root, epsilon, along_h, along_w, l1, l2 for planes [3, H, W, C]."""
    count, height, width, channels = shape
    tv, l1, l2 = weights
    beta1, beta2 = group["betas"]
    values = count * height * width * channels
    # A plane of one texel's height (or width) has no differences along it.
    down = count * channels * max(height - 1, 1) * width
    right = count * channels * height * max(width - 1, 1)
    return [
        group["lr"] / (1 - beta1**step),
        beta1,
        beta2,
        1 / math.sqrt(1 - beta2**step),
        group["eps"],
        tv * 2 / down,
        tv * 2 / right,
        l1 / values,
        l2 * 2 / values,
    ]
