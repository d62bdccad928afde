"""The field's operations as PyTorch knows them: kernels, shapes of results, gradients.

Legend: B triplanes, C channels, H W plane size, R rays, S samples.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from renderer.cuda.field import launch
from renderer.cuda.field.launch import FieldCall, FieldSamples
from renderer.cuda.field.layout import DecoderShape
from renderer.cuda.field.selection import layout_for
from renderer.cuda.library import operation
from renderer.cuda.planes import texels

# What each operation takes: planes [B, 3, C, H, W] or [3, C, H, W], the packed decoder and the bias
# of log density, the decoder's shape, and FieldSamples' tensors.
_FIELD = "Tensor planes, Tensor packed, Tensor bias, int[] shape, int count"
_SAMPLES = (
    "Tensor? points, Tensor? origins, Tensor? directions, Tensor? ray, Tensor? t, "
    "Tensor? triplane, Tensor? axes"
)


def _call(planes, packed, shape, count, samples, *, backward: bool) -> FieldCall:
    layout = layout_for(DecoderShape(*shape), planes.device, backward=backward)
    return FieldCall(layout, FieldSamples(count, *samples), texels(planes), packed.half())


@operation(
    "field_density",
    f"(Tensor(a!) out, {_FIELD}, float decay, {_SAMPLES}) -> ()",
    fake=lambda *arguments: None,
    mutates=["out"],
)
def field_density(out, planes, packed, bias, shape, count, decay, *samples):
    """Set ``out`` [S] to the density; for ``decay`` ≥ 0 the larger of it and ``decay · out``."""
    call = _call(planes, packed, shape, count, samples, backward=False)
    launch.density(call, bias.float().contiguous(), float(decay), out)


def _fake_field(planes, packed, bias, shape, count, *samples):
    return packed.new_empty(count), packed.new_empty(count, 3)


@operation("field", f"({_FIELD}, {_SAMPLES}) -> (Tensor, Tensor)", fake=_fake_field)
def field(planes, packed, bias, shape, count, *samples):
    """Return density [S] and colour [S, 3], differentiable to planes, packed decoder and bias."""
    call = _call(planes, packed, shape, count, samples, backward=False)
    return launch.forward(call, bias.float().contiguous())


def _like_planes(gradient: Tensor, planes: Tensor) -> Tensor:
    """[B, 3, H, W, C] fp32 as a gradient of ``planes``."""
    return gradient.permute(0, 1, 4, 2, 3).reshape(planes.shape).to(planes.dtype)


def _gradient_buffer(planes: Tensor) -> Tensor:
    *batch, three, channels, height, width = planes.shape
    size = (batch[0] if batch else 1, three, height, width, channels)
    return torch.zeros(size, dtype=torch.float32, device=planes.device)


def _fake_field_backward(
    grad_density, grad_color, density, color, to_planes, to_packed, planes, packed, bias, *rest
):
    # What is not wanted is empty.
    return (
        _like_planes(_gradient_buffer(planes), planes) if to_planes else planes.new_empty(0),
        torch.zeros_like(packed) if to_packed else packed.new_empty(0),
        torch.empty_like(bias),
    )


@operation(
    "field_backward",
    "(Tensor grad_density, Tensor grad_color, Tensor density, Tensor color, bool to_planes, "
    f"bool to_packed, {_FIELD}, {_SAMPLES}) -> (Tensor, Tensor, Tensor)",
    fake=_fake_field_backward,
)
def field_backward(
    grad_density,
    grad_color,
    density,
    color,
    to_planes,
    to_packed,
    planes,
    packed,
    bias,
    shape,
    count,
    *samples,
):
    """Return gradients to planes, packed decoder and bias; empty where they are not wanted."""
    call = _call(planes, packed, shape, count, samples, backward=True)
    incoming = grad_density.float().contiguous(), grad_color.float().contiguous()
    gradients, largest = launch.head_gradients(call, density, color, *incoming)
    for_planes = _gradient_buffer(planes) if to_planes else None
    for_packed = torch.zeros_like(packed) if to_packed else None
    launch.backward(call, gradients, largest, for_planes, for_packed)
    return (
        planes.new_empty(0) if for_planes is None else _like_planes(for_planes, planes),
        packed.new_empty(0) if for_packed is None else for_packed,
        gradients[:, 3].sum()[None].to(bias.dtype),
    )


def _setup_field(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    planes, packed, bias, shape, count, *samples = inputs
    ctx.save_for_backward(*output, planes, packed, bias, *samples)
    ctx.shape, ctx.count = shape, count


def _differentiate_field(ctx: Any, grad_density: Tensor, grad_color: Tensor) -> tuple:
    density, color, planes, packed, bias, *samples = ctx.saved_tensors
    wants = ctx.needs_input_grad
    found = field_backward(
        grad_density,
        grad_color,
        density,
        color,
        wants[0],
        wants[1],
        planes,
        packed,
        bias,
        ctx.shape,
        ctx.count,
        *samples,
    )
    first = [g if want else None for g, want in zip(found, wants[:3], strict=True)]
    return (*first, *[None] * (2 + len(samples)))


field.register_autograd(_differentiate_field, setup_context=_setup_field)
