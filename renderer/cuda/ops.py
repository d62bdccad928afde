"""The renderer's operations on the GPU, with the semantics of the plain ones.

Values are fp32; planes and decoder weights take part as halves, sums are fp32. Gradients reach
planes, decoder and background; positions and directions get none.

Legend: B triplanes, C channels, G cells along one side of a grid, H W plane size, R rays,
S samples.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from renderer.compositing import composite_mean_color, composite_weights
from renderer.cuda.compositing import composite_packed, visible_samples
from renderer.cuda.field.evaluate import along_rays, evaluate_density, evaluate_field
from renderer.cuda.field.launch import FieldSamples
from renderer.cuda.marching import march_packed, pack_occupancy
from renderer.cuda.modules import check_count, check_indices, check_tensor
from renderer.decoder import TriplaneDecoder
from renderer.samples import Rendered, Samples
from renderer.triplane import check_planes


def march(
    origins: Tensor,
    directions: Tensor,
    occupied: Tensor,
    *,
    steps: int = 1024,
    near: float = 0.2,
    jitter: Tensor | None = None,
) -> Samples:
    """The samples of :func:`renderer.marching.march`; ``occupied`` is the grid's [G, G, G] bool."""
    bits = pack_occupancy(occupied)
    cells = occupied.shape[-1]
    packed = march_packed(origins, directions, bits, cells, steps=steps, near=near, jitter=jitter)
    return packed.unpacked()


def query_field(
    planes: Tensor, decoder: TriplaneDecoder, points: Tensor, directions: Tensor, ray: Tensor
) -> tuple[Tensor, Tensor]:
    """As :func:`renderer.field.query_field`: density [S] and colour [S, 3].

    Args:
        planes: [3, C, H, W].
        points: [S, 3] in [-1, 1].
        directions: unit, [R, 3].
        ray: ray of each sample, [S].
    """
    check_planes(planes, batched=False)
    _refuse_gradient(points=points, directions=directions)
    device, count = planes.device, points.shape[0]
    check_count(count)
    if ray.shape != (count,):
        raise ValueError(f"ray must be [S={count}], got {list(ray.shape)}")
    check_indices("ray", ray, directions.shape[0])
    samples = FieldSamples(
        count,
        points=check_tensor("points", points, (count, 3), device),
        directions=check_tensor("directions", directions, (None, 3), device),
        ray=ray.int().contiguous(),
    )
    return evaluate_field(planes, decoder, samples)


def query_density(planes: Tensor, decoder: TriplaneDecoder, points: Tensor) -> Tensor:
    """As :func:`renderer.field.query_density`: density at points [S, 3], [S].

    Where gradients are wanted, the kernels go through the whole field.
    """
    check_planes(planes, batched=False)
    _refuse_gradient(points=points)
    device, count = planes.device, points.shape[0]
    check_count(count)
    points = check_tensor("points", points, (count, 3), device)
    wanted = [planes, *decoder.parameters()]
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in wanted)):
        return evaluate_density(planes, decoder, FieldSamples(count, points=points))
    ray = torch.zeros(count, dtype=torch.int32, device=device)
    directions = points.new_tensor([[0.0, 0.0, 1.0]])
    samples = FieldSamples(count, points=points, directions=directions, ray=ray)
    return evaluate_field(planes, decoder, samples)[0]


@torch.no_grad()
def refresh_density(
    grid_density: Tensor,
    planes: Tensor,
    decoder: TriplaneDecoder,
    coordinates: list[Tensor],
    decay: float,
) -> None:
    """``grid_density ← max(decay · grid_density, σ)`` at a lattice of probes, in place.

    Args:
        grid_density: [G, G, G] fp32, indexed (x, y, z).
        planes: [3, C, H, W].
        coordinates: probes along x, y and z, [G] each.
        decay: 0 forgets the past.
    """
    cells = grid_density.shape[0]
    if grid_density.dtype != torch.float32 or not grid_density.is_contiguous():
        raise ValueError("the grid's density must be contiguous fp32")
    axes = torch.stack([axis.to(grid_density) for axis in coordinates]).contiguous()
    check_tensor("coordinates", axes, (3, cells), planes.device)
    samples = FieldSamples(cells**3, axes=axes)
    evaluate_density(planes, decoder, samples, grid_density, decay)


def render_rays(
    planes: Tensor,
    decoder: TriplaneDecoder,
    occupied: Tensor,
    origins: Tensor,
    directions: Tensor,
    background: Tensor,
    *,
    steps: int = 1024,
    near: float = 0.2,
    stop: float = 1e-4,
    jitter: Tensor | None = None,
    color_threshold: float = 0.0,
) -> Rendered:
    """Render rays: march, drop what light does not reach, evaluate the field, composite.

    The samples behind the early stop have no weight and no gradient, so a pass over density alone
    removes them before the field is evaluated in full.

    Args:
        planes: [B, 3, C, H, W].
        occupied: [B, G, G, G] bool.
        origins, directions: [R, 3], unit directions; as many for each triplane, one after the
            other.
        background: [3] or [R, 3]; sRGB in [0, 1].
        jitter: shift of each ray's samples in steps, [R] in [0, 1); 0.5 without.
        color_threshold: above 0, samples that weigh no more take the mean colour of their ray's
            others, and nothing is differentiable.

    Returns:
        Color [R, 3], opacity [R], depth [R]. Differentiable to planes, decoder and background.
    """
    check_planes(planes, batched=True)
    _refuse_gradient(origins=origins, directions=directions)
    batch, rays = planes.shape[0], origins.shape[0]
    bits = pack_occupancy(occupied)
    if bits.shape[0] != batch or rays % batch:
        raise ValueError(f"{bits.shape[0]} grids and {rays} rays for {batch} triplanes")
    triplane = None
    if batch > 1:
        each = torch.arange(batch, dtype=torch.int32, device=planes.device)
        triplane = each.repeat_interleave(rays // batch)
    samples = march_packed(
        origins,
        directions,
        bits,
        occupied.shape[-1],
        steps=steps,
        near=near,
        jitter=jitter,
        triplane=triplane,
    )
    given = along_rays(samples, origins, directions, triplane)
    density = evaluate_density(planes, decoder, given)
    if color_threshold > 0:
        weights = composite_weights(density, samples.unpacked(), stop)
        kept = torch.nonzero(weights > color_threshold)[:, 0]
        heavy = replace(given, count=len(kept), ray=samples.ray[kept], t=samples.t[kept])
        _, color = evaluate_field(planes, decoder, heavy)
        return composite_mean_color(weights, kept, color, samples.unpacked(), background)
    samples = visible_samples(density, samples, stop)
    given = along_rays(samples, origins, directions, triplane)
    density, color = evaluate_field(planes, decoder, given)
    # What shows was decided above; rounding here must not stop a ray earlier.
    return composite_packed(density, color, samples, background, stop=0.0)


def _refuse_gradient(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tensor.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"the CUDA kernels give no gradient to {name}; use impl='reference'")
