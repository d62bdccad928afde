"""Density and colour of samples on the GPU, and their gradients.

Legend: B triplanes, C channels, H W plane size, R rays, S samples.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from renderer.cuda.availability import capability_of
from renderer.cuda.layout import DecoderShape, FieldLayout, choose_layout
from renderer.cuda.marching import PackedSamples
from renderer.cuda.modules import (
    Module,
    check_count,
    check_tensor,
    load_module,
    refuse_nondeterminism,
)
from renderer.cuda.packing import pack_decoder
from renderer.cuda.planes import texels
from renderer.decoder import TriplaneDecoder

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

    def structure(self) -> Source:
        """As the kernels read it; valid as long as this object."""
        tensors = (
            self.points,
            self.origins,
            self.directions,
            self.ray,
            self.t,
            self.triplane,
            self.axes,
        )
        pointers = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
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


@dataclass
class _Call:
    """Inputs of one evaluation that are not differentiable."""

    samples: FieldSamples
    half: Tensor
    shape: DecoderShape
    structure: Source = field(init=False)

    def __post_init__(self):
        self.structure = self.samples.structure()


class _Field(torch.autograd.Function):
    """(planes, packed weights, bias) → (density, colour)."""

    @staticmethod
    def forward(ctx, planes, packed, bias, call: _Call):
        device = planes.device
        layout = layout_for(call.shape, device, backward=False)
        count = call.samples.count
        density = torch.empty(count, device=device)
        color = torch.empty(count, 3, device=device)
        weights, bias = packed.half(), bias.float().contiguous()
        arguments = [call.structure, _planes_structure(call.half), weights, bias, density, color]
        _module("field_forward.cu", layout, device).launch(
            "field_forward",
            [_tiles(count, layout.tile)],
            layout.threads,
            layout.forward_bytes,
            arguments,
        )
        ctx.save_for_backward(density, color, weights)
        ctx.call, ctx.planes_shape, ctx.planes_dtype = call, planes.shape, planes.dtype
        return density, color

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_density, grad_color):
        density, color, weights = ctx.saved_tensors
        call, device = ctx.call, density.device
        gradients, largest = _head_gradients(
            density, color, grad_density.float().contiguous(), grad_color.float().contiguous(), call
        )
        for_planes = for_packed = for_bias = None
        half = call.half
        if ctx.needs_input_grad[0]:
            for_planes = torch.zeros(half.shape, device=device)
        if ctx.needs_input_grad[1]:
            for_packed = torch.zeros(call.shape.weights, device=device)
        _backward(call, weights, gradients, largest, for_planes, for_packed)
        if ctx.needs_input_grad[2]:
            for_bias = gradients[:, 3].sum()[None]
        if for_planes is not None:
            for_planes = for_planes.permute(0, 1, 4, 2, 3).reshape(ctx.planes_shape)
            for_planes = for_planes.to(ctx.planes_dtype)
        return for_planes, for_packed, for_bias, None


def _tiles(count: int, tile: int) -> int:
    return (count + tile - 1) // tile


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


def _backward(call: _Call, weights, gradients, largest, for_planes, for_packed) -> None:
    """Add to the planes' and the packed weights' gradients, as far as they are asked for."""
    device, shape, count = weights.device, call.shape, call.samples.count
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
    planes = _planes_structure(call.half)
    for begin in range(0, count, rows):
        tiles = _tiles(min(rows, count - begin), layout.tile)
        arguments = [call.structure, planes, weights, gradients, largest]
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


def evaluate_field(
    planes: Tensor, decoder: TriplaneDecoder, samples: FieldSamples
) -> tuple[Tensor, Tensor]:
    """Density [S] and colour [S, 3]; differentiable to planes [B, 3, C, H, W] and decoder."""
    shape = DecoderShape.of(decoder)
    if planes.shape[-3] != shape.channels:
        raise ValueError(f"planes have {planes.shape[-3]} channels, the decoder {shape.channels}")
    packed, bias = packed_decoder(decoder)
    if torch.is_grad_enabled() and (planes.requires_grad or packed.requires_grad):
        refuse_nondeterminism()
    return _Field.apply(planes, packed, bias, _Call(samples, texels(planes), shape))


@torch.no_grad()
def evaluate_density(
    planes: Tensor,
    decoder: TriplaneDecoder,
    samples: FieldSamples,
    out: Tensor | None = None,
    decay: float = -1.0,
) -> Tensor:
    """Density alone, [S]; not differentiable.

    Args:
        out: where to put it; with ``decay`` ≥ 0 it becomes ``max(decay · out, density)``.
    """
    shape = DecoderShape.of(decoder)
    device = planes.device
    layout = layout_for(shape, device, backward=False)
    half = texels(planes)
    packed, bias = packed_decoder(decoder)
    weights, bias = packed.detach().half(), bias.detach().float().contiguous()
    if out is None:
        out = torch.empty(samples.count, device=device)
    arguments = [samples.structure(), _planes_structure(half), weights, bias, float(decay), out]
    module = _module("field_forward.cu", layout, device)
    tiles = _tiles(samples.count, layout.tile)
    module.launch("field_density", [tiles], layout.threads, layout.forward_bytes, arguments)
    return out


def packed_decoder(decoder: TriplaneDecoder) -> tuple[Tensor, Tensor]:
    """:func:`pack_decoder`, done once per value of a decoder that needs no gradient."""
    parameters = list(decoder.parameters())
    if torch.is_grad_enabled() and any(p.requires_grad for p in parameters):
        return pack_decoder(decoder)
    key = tuple((id(p), p._version, p.data_ptr()) for p in parameters)
    cached = decoder.__dict__.get("_packed_for_kernels")
    if cached is None or cached[0] != key:
        with torch.no_grad():
            cached = (key, pack_decoder(decoder))
        # In __dict__ directly: a plain attribute, neither parameter nor buffer.
        decoder.__dict__["_packed_for_kernels"] = cached
    return cached[1]


def along_rays(
    samples: PackedSamples, origins: Tensor, directions: Tensor, triplane: Tensor | None
) -> FieldSamples:
    """Packed samples of rays [R, 3] as the field takes them; ``triplane`` as when marching."""
    rays, device = samples.rays, samples.t.device
    return FieldSamples(
        len(samples),
        origins=check_tensor("origins", origins, (rays, 3), device),
        directions=check_tensor("directions", directions, (rays, 3), device),
        ray=samples.ray,
        t=samples.t,
        triplane=triplane,
    )
