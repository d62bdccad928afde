"""Density and colour of samples on the GPU, differentiable.

Legend: B triplanes, C channels, H W plane size, R rays, S samples.
"""

from __future__ import annotations

from dataclasses import astuple

import torch
from torch import Tensor

from renderer.cuda.field import ops
from renderer.cuda.field.launch import FieldSamples
from renderer.cuda.field.layout import DecoderShape
from renderer.cuda.field.packing import pack_decoder
from renderer.cuda.marching import PackedSamples
from renderer.cuda.modules import check_tensor, refuse_nondeterminism
from renderer.decoder import TriplaneDecoder


def evaluate_field(
    planes: Tensor, decoder: TriplaneDecoder, samples: FieldSamples
) -> tuple[Tensor, Tensor]:
    """Density [S] and colour [S, 3]; differentiable to planes [B, 3, C, H, W] and decoder."""
    shape = _shape_of(decoder, planes)
    packed, bias = packed_decoder(decoder)
    if torch.is_grad_enabled() and (planes.requires_grad or packed.requires_grad):
        refuse_nondeterminism()
    return ops.field(planes, packed, bias, shape, samples.count, *samples.tensors())


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
    shape = _shape_of(decoder, planes)
    packed, bias = packed_decoder(decoder)
    if out is None:
        out = torch.empty(samples.count, device=planes.device)
    given = (planes, packed.detach(), bias.detach(), shape, samples.count, float(decay))
    ops.field_density(out, *given, *samples.tensors())
    return out


def _shape_of(decoder: TriplaneDecoder, planes: Tensor) -> list[int]:
    """The decoder's, for planes that fit it.

    Raises:
        ValueError: if they do not.
    """
    shape = DecoderShape.of(decoder)
    if planes.shape[-3] != shape.channels:
        raise ValueError(f"planes have {planes.shape[-3]} channels, the decoder {shape.channels}")
    return list(astuple(shape))


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
