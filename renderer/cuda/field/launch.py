"""Launching the field's kernels, cut as a layout says.

Legend: B triplanes, C channels, H W plane size, R rays, S samples.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from renderer.cuda.availability import multiprocessors
from renderer.cuda.field.layout import FieldLayout
from renderer.cuda.modules import Module, check_count, load_module

# Samples whose layer inputs and gradients are on the GPU at a time, at most: 128 MB at the default
# size.
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


@dataclass(frozen=True)
class FieldCall:
    """What every kernel of the field reads.

    Attributes:
        layout: how the kernels are cut.
        samples: where.
        half: the planes' texels, [B, 3, H, W, C] half.
        weights: the packed decoder, half.
    """

    layout: FieldLayout
    samples: FieldSamples
    half: Tensor
    weights: Tensor

    @property
    def planes(self) -> Planes:
        """As the kernels read them."""
        return Planes(self.half.data_ptr(), self.half.shape[2], self.half.shape[3])

    def module(self, source: str) -> Module:
        """The kernels of a source for this layout and the tensors' device."""
        return load_module(source, self.layout.macros, self.half.device)

    def grid(self, count: int) -> list[int]:
        """Blocks for so many samples."""
        tiles = _tiles(count, self.layout.tile)
        return self.layout.grid(tiles, multiprocessors(self.half.device))


def _tiles(count: int, tile: int) -> int:
    return (count + tile - 1) // tile


def density(call: FieldCall, bias: Tensor, decay: float, out: Tensor) -> None:
    """Set ``out`` [S] to the density; for ``decay`` ≥ 0 the larger of it and ``decay · out``."""
    arguments = [call.samples.structure(), call.planes, call.weights, bias, decay, out]
    layout, grid = call.layout, call.grid(call.samples.count)
    module = call.module("field_forward.cu")
    module.launch("field_density", grid, layout.threads, layout.forward_bytes, arguments)


def forward(call: FieldCall, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return density [S] and colour [S, 3]."""
    layout, count = call.layout, call.samples.count
    out = torch.empty(count, device=bias.device), torch.empty(count, 3, device=bias.device)
    arguments = [call.samples.structure(), call.planes, call.weights, bias, *out]
    module = call.module("field_forward.cu")
    module.launch(
        "field_forward", call.grid(count), layout.threads, layout.forward_bytes, arguments
    )
    return out


def head_gradients(
    call: FieldCall, density: Tensor, color: Tensor, grad_density: Tensor, grad_color: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients before the outputs' nonlinearities, [S, 4], and the largest magnitudes, [2]:
    colour's and log density's."""
    count, device = call.samples.count, density.device
    gradients = torch.empty(count, 4, device=device)
    largest = torch.zeros(2, device=device)
    arguments = [density, color, grad_density, grad_color, gradients, largest, count]
    module = call.module("field_backward.cu")
    module.launch("head_gradients", [_tiles(count, 128)], 128, 0, arguments)
    return gradients, largest


def backward(
    call: FieldCall,
    gradients: Tensor,
    largest: Tensor,
    for_planes: Tensor | None,
    for_packed: Tensor | None,
) -> None:
    """Add to the planes' and the packed weights' gradients, as far as they are asked for.

    Args:
        gradients, largest: of :func:`head_gradients`.
        for_planes: [B, 3, H, W, C] fp32.
        for_packed: fp32, as long as the packed weights.
    """
    layout, count = call.layout, call.samples.count
    if count == 0 or (for_planes is None and for_packed is None):
        return
    # Without layer gradients to keep, all samples go in one launch.
    chunk = count if for_packed is None else min(BACKWARD_CHUNK, layout.chunk, count)
    rows = _tiles(chunk, layout.tile) * layout.tile
    inputs = layer_grads = None
    if for_packed is not None:
        kept = {"dtype": torch.float16, "device": gradients.device}
        inputs = torch.empty(rows, layout.shape.inputs, **kept)
        layer_grads = torch.empty(rows, layout.shape.gradients, **kept)
    source, planes = call.samples.structure(), call.planes
    for begin in range(0, count, rows):
        tiles = _tiles(min(rows, count - begin), layout.tile)
        arguments = [source, planes, call.weights, gradients, largest]
        arguments += [for_planes, inputs, layer_grads, begin, tiles]
        call.module("field_backward.cu").launch(
            "field_backward",
            call.grid(tiles * layout.tile),
            layout.threads,
            layout.backward_bytes,
            arguments,
        )
        if for_packed is not None:
            written = tiles * layout.tile
            slices = min(_GRADIENT_SLICES, _tiles(written, 256))
            call.module("decoder_gradients.cu").launch(
                "decoder_gradients",
                [slices, layout.strips],
                256,
                layout.gradient_bytes,
                [inputs, layer_grads, largest, written, for_packed],
            )
