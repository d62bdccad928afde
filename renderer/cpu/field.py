"""Density and colour at points, differentiable, and what the other functions share.

Legend: S samples, R rays, B triplanes, C channels, H W plane size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from renderer.cpu.buffers import (
    Activations,
    Parameters,
    chunks,
    chunks_to_keep,
    give_back_activations,
    take_activations,
)
from renderer.cpu.chunk import ChunkRunner, GradientRunner
from renderer.cpu.kernels.lookup import Places, scatter
from renderer.cpu.threads import run_workers, shares, worker_count
from renderer.decoder import TriplaneDecoder, frequency_encode


def channel_last(planes: Tensor) -> Tensor:
    """[B, 3, C, H, W] → contiguous [B·3, H, W, C]; no copy when the memory is so already."""
    return planes.flatten(0, 1).permute(0, 2, 3, 1).contiguous()


def fold(decoder: TriplaneDecoder, planes: Tensor, directions: Tensor) -> Parameters:
    """Multiply the decoder's adjoining matrices; differentiable.

    Args:
        planes: channel-last.
        directions: unit vectors of the rays, [R, 3].
    """
    # Products of half precision, which autocast would make them, are too coarse here.
    with torch.autocast("cpu", enabled=False):
        return _fold(decoder, planes, directions)


def _fold(decoder: TriplaneDecoder, planes: Tensor, directions: Tensor) -> Parameters:
    encoded = 1 + 2 * decoder.frequencies
    color = decoder.color_channels * encoded
    geometry = decoder.color_in.weight[:, color + 3 * encoded :]
    ray_term = F.linear(
        frequency_encode(directions, decoder.frequencies),
        decoder.color_in.weight[:, color : color + 3 * encoded],
        geometry @ decoder.density_out.bias[1:],
    )
    folded = torch.cat(
        [decoder.color_in.weight[:, :color], geometry @ decoder.density_out.weight[1:]], dim=1
    )
    return Parameters(
        planes,
        decoder.density_in.weight,
        decoder.density_in.bias,
        decoder.density_out.weight[0],
        decoder.density_out.bias[:1],
        folded,
        decoder.color_hidden.weight,
        decoder.color_out.weight,
        ray_term,
    )


def total_gradients(runners: list[GradientRunner]) -> list[Tensor]:
    """Sums over workers, in their order, of all parameters but planes and ray term."""
    return [
        torch.stack([runner.gradients[k] for runner in runners]).sum(0)
        for k in range(1, len(Parameters._fields) - 1)
    ]


def scatter_features(gradient: np.ndarray, places: Places, shape: torch.Size) -> Tensor:
    """Gradient to the channel-last planes from those to the features of all samples [S, C]."""
    planes = torch.zeros(shape)
    array, workers = planes.numpy(), worker_count()
    turn = np.arange(3 * shape[1]) % workers

    def work(index: int) -> None:
        scatter(gradient, places, turn == index, array)

    run_workers(work, workers)
    return planes


def _places_of(points: Tensor, view: np.ndarray | None = None) -> Places:
    """Points [S, 3] of one triplane as rays of length 0; ``view`` as in :class:`Places`."""
    count = points.shape[0]
    ray = np.arange(count)
    origins = points.detach().contiguous().numpy()
    still = np.zeros(count, np.float32)
    return Places(
        origins, np.zeros_like(origins), max(1, count), ray, still, ray if view is None else view
    )


def _plain(tensors: tuple[Tensor, ...]) -> Parameters:
    return Parameters(*(t.detach().contiguous() for t in tensors))


class _Field(torch.autograd.Function):
    """Density [S] and colour [S, 3], or density alone."""

    @staticmethod
    def forward(
        ctx: Any,
        places: Places,
        layout: tuple[int, int],
        with_color: bool,
        *tensors: Tensor,
    ):
        parameters = _plain(tensors)
        count, workers = len(places.t), worker_count()
        density, color = torch.empty(count), torch.empty(count, 3)
        density_array, color_array = density.numpy(), color.numpy()
        parts = shares(count, workers)
        stored: list[list[Activations]] = [[] for _ in parts]
        kept = with_color and any(ctx.needs_input_grad)

        def work(index: int) -> None:
            runner = ChunkRunner(parameters, places, *layout)
            keeps = chunks_to_keep(runner.widths, workers) if kept else 0
            for low, high in chunks(*parts[index]):
                if not with_color:
                    runner.density(low, high, density_array[low:high])
                    continue
                if len(stored[index]) < keeps:
                    stored[index].append(take_activations(runner.widths))
                    runner.adopt(stored[index][-1])
                else:
                    runner.adopt(runner.own)
                runner.forward(low, high, color_array[low:high], density_array[low:high])

        run_workers(work, workers)
        ctx.save_for_backward(*tensors, color)
        ctx.kept = (places, layout, with_color)
        ctx.stored = stored
        return (density, color) if with_color else density

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *incoming: Tensor):  # type: ignore[override]
        places, layout, with_color = ctx.kept
        *tensors, color = ctx.saved_tensors
        parameters = _plain(tuple(tensors))
        wanted = ctx.needs_input_grad[3:]
        gradients = [x.contiguous().numpy() for x in incoming]
        count, workers = len(places.t), worker_count()
        parts = shares(count, workers)
        # A second backward pass computes again.
        stored, ctx.stored = ctx.stored, [[] for _ in parts]
        shape = (count, parameters.planes.shape[3])
        features = np.empty(shape, np.float32) if wanted[0] else None
        # Two workers may hold samples of one ray, so each sums on its own.
        runners = [
            GradientRunner(
                parameters, places, *layout, any(wanted[1:]), torch.zeros_like(parameters.ray_term)
            )
            for _ in range(workers)
        ]

        def work(index: int) -> None:
            runner = runners[index]
            for number, (low, high) in enumerate(chunks(*parts[index])):
                part = slice(low, high)
                to_features = None if features is None else features[part]
                arguments = [g[part] for g in gradients]
                if not with_color:
                    runner.density_backward(low, high, *arguments, to_features)
                    continue
                kept = None
                if number < len(stored[index]):
                    kept = stored[index][number], color.numpy()[part]
                runner.backward(low, high, *arguments, to_features, kept)

        run_workers(work, workers)
        for used in stored:
            give_back_activations(used)
        planes = None
        if features is not None:
            planes = scatter_features(features, places, parameters.planes.shape)
        found: list[Tensor | None] = [planes, *([None] * (len(parameters) - 1))]
        if any(wanted[1:]):
            ray_term = torch.stack([r.gradients.ray_term for r in runners]).sum(0)
            found[1:] = [*total_gradients(runners), ray_term]
        return None, None, None, *found


def query_field_cpu(
    planes: Tensor, decoder: TriplaneDecoder, points: Tensor, directions: Tensor, ray: Tensor
) -> tuple[Tensor, Tensor]:
    """See :func:`renderer.field.query_field`; differentiable to planes and decoder."""
    # What depends on directions is computed for the rays between the first and the last in use.
    first = int(ray.min()) if len(ray) else 0
    last = int(ray.max()) + 1 if len(ray) else 0
    parameters = fold(decoder, channel_last(planes[None]), directions[first:last])
    places = _places_of(points, (ray - first).numpy())
    layout = (decoder.color_channels, decoder.frequencies)
    density, color = _Field.apply(places, layout, True, *parameters)  # type: ignore[misc]
    return density, color


def query_density_cpu(planes: Tensor, decoder: TriplaneDecoder, points: Tensor) -> Tensor:
    """See :func:`renderer.field.query_density`; differentiable to planes and decoder."""
    unused = planes.new_empty(0)
    parameters = Parameters(
        channel_last(planes[None]),
        decoder.density_in.weight,
        decoder.density_in.bias,
        decoder.density_out.weight[0],
        decoder.density_out.bias[:1],
        *[unused] * 4,
    )
    layout = (decoder.color_channels, decoder.frequencies)
    density = _Field.apply(_places_of(points), layout, False, *parameters)
    assert isinstance(density, Tensor)
    return density
