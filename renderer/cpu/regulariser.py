"""The planes' regularisers and their gradient in one pass over memory.

Legend: N = 3·C channels of all planes, H W plane size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from renderer.cpu.jit import kernel
from renderer.cpu.threads import run_workers, shares, worker_count


@kernel
def regularise(offset, first, last, down, right, l1, l2, gradient):
    """Channels ``first … last`` of ``offset`` [N, H, W]: their value; gradient into [N, H, W].

    Args:
        down, right: weight of each squared difference to the texel below and to the right.
        l1, l2: weight of each texel's absolute value and square.
    """
    _, height, width = offset.shape
    two = np.float32(2.0)
    value = 0.0
    for n in range(first, last):
        values, slopes = offset[n], gradient[n]
        for y in range(height):
            row, slope = values[y], slopes[y]
            total = np.float32(0.0)
            for x in range(width):
                v = row[x]
                total += l1 * abs(v) + l2 * v * v
                slope[x] = l1 * np.sign(v) + two * l2 * v
            for x in range(width - 1):
                d = row[x + 1] - row[x]
                total += right * d * d
                slope[x] -= two * right * d
            for x in range(1, width):
                slope[x] += two * right * (row[x] - row[x - 1])
            if y + 1 < height:
                below = values[y + 1]
                for x in range(width):
                    d = below[x] - row[x]
                    total += down * d * d
                    slope[x] -= two * down * d
            if y > 0:
                above = values[y - 1]
                for x in range(width):
                    slope[x] += two * down * (row[x] - above[x])
            value += total
    return value


class _Regularisation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, offset: Tensor, tv: float, l1: float, l2: float) -> Tensor:
        _, _, height, width = offset.shape
        flat = offset.detach().contiguous().view(-1, height, width)
        gradient = torch.empty_like(flat)
        texels, count = flat.numel(), len(flat)
        down = tv / (texels - count * width) if height > 1 else 0.0
        right = tv / (texels - count * height) if width > 1 else 0.0
        weights = [np.float32(w) for w in (down, right, l1 / texels, l2 / texels)]
        parts = shares(count, worker_count())
        values = [0.0] * len(parts)
        source, target = flat.numpy(), gradient.numpy()

        def work(index: int) -> None:
            values[index] = regularise(source, *parts[index], *weights, target)

        run_workers(work, len(parts))
        ctx.gradient = gradient.view(offset.shape)
        return torch.tensor(sum(values), dtype=torch.float32)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, incoming: Tensor):  # type: ignore[override]
        return incoming * ctx.gradient, None, None, None


def plane_regularisation_cpu(offset: Tensor, tv: float, l1: float, l2: float) -> Tensor:
    """See :func:`renderer.losses.plane_regularisation`; ``offset`` [3, C, H, W] fp32."""
    value = _Regularisation.apply(offset, tv, l1, l2)
    assert isinstance(value, Tensor)
    return value
