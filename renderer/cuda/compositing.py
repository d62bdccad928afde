"""Compositing on the GPU, the same as :func:`renderer.compositing.composite`.

Legend: R rays, S samples.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from renderer.cuda.library import operation
from renderer.cuda.marching import PackedSamples, fake_samples, scan
from renderer.cuda.modules import check_tensor, load_module
from renderer.samples import Rendered

_BLOCK = 128
_WARPS = _BLOCK // 32
_NO_MACROS: dict[str, int] = {}


def _grid(rays: int) -> list[int]:
    return [(rays + _WARPS - 1) // _WARPS]


def _stride(background: Tensor) -> int:
    return 3 if background.ndim == 2 else 0


def _fake_composite(density, color, background, t, offsets, step, stop):
    rays = offsets.shape[0] - 1
    return density.new_empty(rays, 3), density.new_empty(rays), density.new_empty(rays)


@operation(
    "composite",
    "(Tensor density, Tensor color, Tensor background, Tensor t, Tensor offsets, float step, "
    "float stop) -> (Tensor, Tensor, Tensor)",
    fake=_fake_composite,
)
def _composite(density, color, background, t, offsets, step, stop):
    """Color [R, 3], opacity [R], depth [R] of fp32 tensors that are contiguous."""
    out = _fake_composite(density, color, background, t, offsets, step, stop)
    rays = offsets.shape[0] - 1
    arguments = [density, color, t, offsets, background, _stride(background), step, stop]
    module = load_module("composite.cu", _NO_MACROS, density.device)
    module.launch("composite_forward", _grid(rays), _BLOCK, 0, [*arguments, *out, rays])
    return out


@operation(
    "composite_backward",
    "(Tensor grad_color, Tensor grad_opacity, Tensor grad_depth, Tensor density, Tensor color, "
    "Tensor background, Tensor t, Tensor offsets, Tensor opacity, Tensor depth, float step, "
    "float stop) -> (Tensor, Tensor, Tensor)",
    fake=lambda *given: tuple(torch.empty_like(tensor) for tensor in given[3:6]),
)
def _composite_backward(
    grad_color,
    grad_opacity,
    grad_depth,
    density,
    color,
    background,
    t,
    offsets,
    opacity,
    depth,
    step,
    stop,
):
    """Gradients to density, colour and background."""
    rays = offsets.shape[0] - 1
    incoming = [grad.float().contiguous() for grad in (grad_color, grad_opacity, grad_depth)]
    for_density, for_color = torch.empty_like(density), torch.empty_like(color)
    module = load_module("composite.cu", _NO_MACROS, density.device)
    module.launch(
        "composite_backward",
        _grid(rays),
        _BLOCK,
        0,
        [density, color, t, offsets, background, _stride(background), step, stop]
        + [opacity, depth, *incoming, for_density, for_color, rays],
    )
    for_background = (1 - opacity)[:, None] * incoming[0]
    return for_density, for_color, for_background.sum(0) if background.ndim == 1 else for_background


def _setup_composite(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.step, ctx.stop = inputs
    ctx.save_for_backward(*tensors, *output[1:])


def _differentiate_composite(ctx: Any, *incoming: Tensor) -> tuple:
    found = _composite_backward(*incoming, *ctx.saved_tensors, ctx.step, ctx.stop)
    wanted = zip(found, ctx.needs_input_grad[:3], strict=True)
    return (*(gradient if want else None for gradient, want in wanted), None, None, None, None)


_composite.register_autograd(_differentiate_composite, setup_context=_setup_composite)


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
    return Rendered(*_composite(*tensors, samples.t, samples.offsets, samples.step, float(stop)))


@torch.no_grad()
def visible_samples(density: Tensor, samples: PackedSamples, stop: float = 1e-4) -> PackedSamples:
    """Only the samples that light still reaches: no transmittance below ``stop`` before them.

    Waits for the GPU once, to learn their number.
    """
    given = density, samples.t, samples.offsets, samples.step, float(stop)
    return PackedSamples(*_visible(*given), samples.step)


@operation(
    "visible",
    "(Tensor density, Tensor t, Tensor offsets, float step, float stop) "
    "-> (Tensor, Tensor, Tensor)",
    fake=lambda density, t, offsets, step, stop: fake_samples(offsets, offsets.shape[0] - 1),
)
def _visible(density, t, offsets, step, stop):
    """Ray [K], distance [K] and offsets [R + 1] of the samples that are kept."""
    module = load_module("composite.cu", _NO_MACROS, density.device)
    rays = offsets.shape[0] - 1
    kept = torch.empty(rays, dtype=torch.int32, device=density.device)
    module.launch(
        "count_visible", _grid(rays), _BLOCK, 0, [density, offsets, step, stop, kept, rays]
    )
    new_offsets, total = scan(kept)
    ray = torch.empty(total, dtype=torch.int32, device=density.device)
    distance = torch.empty(total, dtype=torch.float32, device=density.device)
    arguments = [t, offsets, new_offsets, ray, distance, rays]
    module.launch("keep_visible", _grid(rays), _BLOCK, 0, arguments)
    return ray, distance, new_offsets
