"""Compositing on the GPU, the same as :func:`renderer.compositing.composite`.

Legend: R rays, S samples.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from renderer.cuda.marching import PackedSamples, scan
from renderer.cuda.modules import check_tensor, load_module
from renderer.samples import Rendered

_BLOCK = 128
_WARPS = _BLOCK // 32
_NO_MACROS: dict[str, int] = {}


def _grid(rays: int) -> list[int]:
    return [(rays + _WARPS - 1) // _WARPS]


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, density, color, background, samples: PackedSamples, stop: float):
        rays = samples.rays
        out = density.new_empty(rays, 3), density.new_empty(rays), density.new_empty(rays)
        stride = 3 if background.ndim == 2 else 0
        module = load_module("composite.cu", _NO_MACROS, density.device)
        inputs = [density, color, samples.t, samples.offsets, background, stride]
        module.launch(
            "composite_forward",
            _grid(rays),
            _BLOCK,
            0,
            [*inputs, samples.step, stop, *out, rays],
        )
        ctx.save_for_backward(density, color, background, out[1], out[2])
        ctx.samples, ctx.stop = samples, stop
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_color, grad_opacity, grad_depth):
        density, color, background, opacity, depth = ctx.saved_tensors
        samples, rays = ctx.samples, ctx.samples.rays
        grads = [grad_color, grad_opacity, grad_depth]
        grad_color, grad_opacity, grad_depth = (grad.float().contiguous() for grad in grads)
        for_density, for_color = torch.empty_like(density), torch.empty_like(color)
        stride = 3 if background.ndim == 2 else 0
        load_module("composite.cu", _NO_MACROS, density.device).launch(
            "composite_backward",
            _grid(rays),
            _BLOCK,
            0,
            [density, color, samples.t, samples.offsets, background, stride, samples.step]
            + [ctx.stop, opacity, depth, grad_color, grad_opacity, grad_depth]
            + [for_density, for_color, rays],
        )
        for_background = None
        if ctx.needs_input_grad[2]:
            for_background = (1 - opacity)[:, None] * grad_color
            if background.ndim == 1:
                for_background = for_background.sum(0)
        return for_density, for_color, for_background, None, None


def composite_packed(
    density: Tensor,
    color: Tensor,
    samples: PackedSamples,
    background: Tensor,
    stop: float = 1e-4,
) -> Rendered:
    """Composite samples front to back over a background.

    Args:
        density: [S] per world unit.
        color: [S, 3] in [0, 1].
        background: [3] or [R, 3], sRGB in [0, 1].
        stop: samples behind a transmittance below this contribute nothing.

    Returns:
        Color [R, 3], opacity [R], depth [R]; differentiable to density, colour and background.
    """
    device, count = density.device, len(samples)
    check_tensor("density", density, (count,), device)
    check_tensor("color", color, (count, 3), device)
    shape = (3,) if background.ndim == 1 else (samples.rays, 3)
    check_tensor("background", background, shape, device)
    tensors = [tensor.float().contiguous() for tensor in (density, color, background)]
    return Rendered(*_Composite.apply(*tensors, samples, float(stop)))


@torch.no_grad()
def visible_samples(density: Tensor, samples: PackedSamples, stop: float = 1e-4) -> PackedSamples:
    """Only the samples that light still reaches: transmittance of at least ``stop``.

    Waits for the GPU once, to learn their number.
    """
    module = load_module("composite.cu", _NO_MACROS, density.device)
    rays = samples.rays
    kept = torch.empty(rays, dtype=torch.int32, device=density.device)
    arguments = [density, samples.offsets, samples.step, float(stop), kept, rays]
    module.launch("count_visible", _grid(rays), _BLOCK, 0, arguments)
    offsets, total = scan(kept)
    if total == len(samples):
        return samples
    ray = torch.empty(total, dtype=torch.int32, device=density.device)
    t = torch.empty(total, dtype=torch.float32, device=density.device)
    arguments = [samples.t, samples.offsets, offsets, ray, t, rays]
    module.launch("keep_visible", _grid(rays), _BLOCK, 0, arguments)
    return PackedSamples(ray, t, offsets, samples.step)
