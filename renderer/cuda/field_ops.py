"""The field's operations as PyTorch knows them: kernels, shapes of results, gradients.

Legend: B triplanes, C channels, H W plane size, R rays, S samples.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from renderer.cuda.availability import capability_of
from renderer.cuda.layout import DecoderShape, FieldLayout, choose_layout
from renderer.cuda.library import operation
from renderer.cuda.modules import Module, check_count, load_module
from renderer.cuda.planes import texels

# Samples whose layer inputs and gradients are on the GPU at a time: 128 MB at the default size.
BACKWARD_CHUNK = 65536
# Slices of the samples in the decoder's gradients: enough blocks for the largest GPU.
_GRADIENT_SLICES = 48


class Source(ctypes.Structure):
    _fields_ = [
        ("points", ctypes.c_void_p),
        ("origins", ctypes.c_void_p),
        ("directions", ctypes.c_void_p),
        ("ray", ctypes.c_void_p),
        ("t", ctypes.c_void_p),
        ("triplane", ctypes.c_void_p),
        ("axes", ctypes.c_void_p),
        ("cells", ctypes.c_int),
        ("count", ctypes.c_int),
    ]


class Planes(ctypes.Structure):
    _fields_ = [("texels", ctypes.c_void_p), ("height", ctypes.c_int), ("width", ctypes.c_int)]


@dataclass(frozen=True)
class FieldSamples:
    """Places at which to evaluate the field; what is not given is None.

    Attributes:
        count: S.
        points: [S, 3]; else positions come from origins, directions, ray and t.
        origins, directions: [R, 3].
        ray: [S] int32.
        t: [S].
        triplane: of each ray, [R] int32.
        axes: [3, G]: coordinates of a lattice, whose points are the samples.

    Raises:
        ValueError: if there are too many for one call.
    """

    count: int
    points: Tensor | None = None
    origins: Tensor | None = None
    directions: Tensor | None = None
    ray: Tensor | None = None
    t: Tensor | None = None
    triplane: Tensor | None = None
    axes: Tensor | None = None

    def __post_init__(self):
        check_count(self.count)

    def tensors(self) -> tuple[Tensor | None, ...]:
        """All but the count, in order."""
        return (
            self.points,
            self.origins,
            self.directions,
            self.ray,
            self.t,
            self.triplane,
            self.axes,
        )

    def structure(self) -> Source:
        """As the kernels read it; valid as long as this object."""
        pointers = [None if tensor is None else tensor.data_ptr() for tensor in self.tensors()]
        cells = 0 if self.axes is None else self.axes.shape[1]
        return Source(*pointers, cells, self.count)


@functools.lru_cache(maxsize=64)
def _layout(shape: DecoderShape, capability: int, backward: bool) -> FieldLayout:
    return choose_layout(shape, capability, backward=backward)


def layout_for(shape: DecoderShape, device: torch.device, *, backward: bool) -> FieldLayout:
    """Return how the kernels are cut on a device."""
    # Elsewhere the kernels only run in tests; any card's cut will do.
    capability = capability_of(device) if device.type == "cuda" else 70
    return _layout(shape, capability, backward)


def _module(source: str, layout: FieldLayout, device: torch.device) -> Module:
    return load_module(source, layout.macros, device)


def _planes_structure(half: Tensor) -> Planes:
    return Planes(half.data_ptr(), half.shape[2], half.shape[3])


def _tiles(count: int, tile: int) -> int:
    return (count + tile - 1) // tile


# What each operation takes: planes [B, 3, C, H, W] or [3, C, H, W], the packed decoder and the bias
# of log density, the decoder's shape, and FieldSamples' tensors.
_FIELD = "Tensor planes, Tensor packed, Tensor bias, int[] shape, int count"
_SAMPLES = (
    "Tensor? points, Tensor? origins, Tensor? directions, Tensor? ray, Tensor? t, "
    "Tensor? triplane, Tensor? axes"
)


@operation(
    "field_density",
    f"(Tensor(a!) out, {_FIELD}, float decay, {_SAMPLES}) -> ()",
    fake=lambda *arguments: None,
    mutates=["out"],
)
def field_density(out, planes, packed, bias, shape, count, decay, *samples):
    """Set ``out`` [S] to the density; for ``decay`` ≥ 0 the larger of it and ``decay · out``."""
    layout = layout_for(DecoderShape(*shape), planes.device, backward=False)
    weights, bias = packed.half(), bias.float().contiguous()
    source, half = FieldSamples(count, *samples), texels(planes)
    arguments = [source.structure(), _planes_structure(half), weights, bias, float(decay), out]
    module = _module("field_forward.cu", layout, planes.device)
    tiles = _tiles(count, layout.tile)
    module.launch("field_density", [tiles], layout.threads, layout.forward_bytes, arguments)


def _fake_field(planes, packed, bias, shape, count, *samples):
    return packed.new_empty(count), packed.new_empty(count, 3)


@operation("field", f"({_FIELD}, {_SAMPLES}) -> (Tensor, Tensor)", fake=_fake_field)
def field(planes, packed, bias, shape, count, *samples):
    """Return density [S] and colour [S, 3], differentiable to planes, packed decoder and bias."""
    layout = layout_for(DecoderShape(*shape), planes.device, backward=False)
    density, color = _fake_field(planes, packed, bias, shape, count)
    weights, bias = packed.half(), bias.float().contiguous()
    source, half = FieldSamples(count, *samples), texels(planes)
    arguments = [source.structure(), _planes_structure(half), weights, bias, density, color]
    _module("field_forward.cu", layout, planes.device).launch(
        "field_forward",
        [_tiles(count, layout.tile)],
        layout.threads,
        layout.forward_bytes,
        arguments,
    )
    return density, color


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
    call = _Call(DecoderShape(*shape), FieldSamples(count, *samples), texels(planes), packed.half())
    incoming = grad_density.float().contiguous(), grad_color.float().contiguous()
    gradients, largest = _head_gradients(density, color, *incoming, call)
    for_planes = _gradient_buffer(planes) if to_planes else None
    for_packed = torch.zeros_like(packed) if to_packed else None
    _backward(call, gradients, largest, for_planes, for_packed)
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


@dataclass(frozen=True)
class _Call:
    """Inputs of one backward pass."""

    shape: DecoderShape
    samples: FieldSamples
    half: Tensor
    weights: Tensor


def _head_gradients(density, color, grad_density, grad_color, call: _Call):
    """Gradients before the outputs' nonlinearities, [S, 4], and the largest magnitudes, [2]:
    colour's and log density's."""
    count, device = call.samples.count, density.device
    gradients = torch.empty(count, 4, device=device)
    largest = torch.zeros(2, device=device)
    layout = layout_for(call.shape, device, backward=True)
    arguments = [density, color, grad_density, grad_color, gradients, largest, count]
    module = _module("field_backward.cu", layout, device)
    module.launch("head_gradients", [_tiles(count, 128)], 128, 0, arguments)
    return gradients, largest


def _backward(call: _Call, gradients, largest, for_planes, for_packed) -> None:
    """Add to the planes' and the packed weights' gradients, as far as they are asked for."""
    device, shape, count = gradients.device, call.shape, call.samples.count
    if count == 0 or (for_planes is None and for_packed is None):
        return
    layout = layout_for(shape, device, backward=True)
    # Without layer gradients to keep, all samples go in one launch.
    chunk = count if for_packed is None else min(BACKWARD_CHUNK, count)
    rows = _tiles(chunk, layout.tile) * layout.tile
    inputs = layer_grads = None
    if for_packed is not None:
        inputs = torch.empty(rows, shape.inputs, dtype=torch.float16, device=device)
        layer_grads = torch.empty(rows, shape.gradients, dtype=torch.float16, device=device)
    source, planes = call.samples.structure(), _planes_structure(call.half)
    for begin in range(0, count, rows):
        tiles = _tiles(min(rows, count - begin), layout.tile)
        arguments = [source, planes, call.weights, gradients, largest]
        arguments += [for_planes, inputs, layer_grads, begin]
        _module("field_backward.cu", layout, device).launch(
            "field_backward", [tiles], layout.threads, layout.backward_bytes, arguments
        )
        if for_packed is not None:
            kept = tiles * layout.tile
            slices = min(_GRADIENT_SLICES, _tiles(kept, 256))
            _module("decoder_gradients.cu", layout, device).launch(
                "decoder_gradients",
                [slices, layout.strips],
                256,
                layout.gradient_bytes,
                [inputs, layer_grads, largest, kept, for_packed],
            )
