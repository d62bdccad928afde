"""Rays through triplanes to pixels in one differentiable function.

Legend: R rays, S samples, V samples in sight, B triplanes, C channels, H W plane size.

A first pass computes density alone, a few samples ahead on each ray, until the ray's transmittance
falls below the early stop; colour is computed, and gradients flow, only for the samples before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from renderer.cpu import compositing, lookahead
from renderer.cpu.buffers import (
    CHUNK,
    KEEP_BYTES,
    Activations,
    Parameters,
    Places,
    chunks,
    give_back_activations,
    take_activations,
)
from renderer.cpu.chunk import ChunkRunner, GradientRunner
from renderer.cpu.field import channel_last, fold, scatter_features, total_gradients
from renderer.cpu.threads import ray_shares, run_workers, worker_count
from renderer.decoder import TriplaneDecoder
from renderer.marching import Samples


class _RenderRays(torch.autograd.Function):
    """Packed samples → sums of weight × colour [R, 3], weights [R], weight × distance [R]."""

    @staticmethod
    def forward(
        ctx: Any,
        origins: Tensor,
        directions: Tensor,
        samples: Samples,
        rays_each: int,
        layout: tuple[int, int],
        stop: float,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        parameters = Parameters(*(t.detach().contiguous() for t in tensors))
        t, offsets = samples.t.numpy(), samples.offsets.numpy()
        geometry = (origins.numpy(), directions.numpy(), rays_each)
        rays, workers = len(offsets) - 1, worker_count()

        density, weights = np.empty((2, len(t)), np.float32)
        visible = np.zeros(rays, np.int64)
        parts = ray_shares(offsets, workers)

        def look(index: int) -> None:
            first, last = parts[index]
            batch_ray, batch_t = np.empty(CHUNK, np.int64), np.empty(CHUNK, np.float32)
            batch = np.empty(CHUNK, np.float32)
            places = Places(*geometry, batch_ray, batch_t, batch_ray)
            runner = ChunkRunner(parameters, places, *layout)
            slots = np.full((lookahead.SLOTS, 3), -1)
            optical = np.empty(len(slots))
            while True:
                count, first = lookahead.fill_from_samples(
                    t, offsets, first, last, slots, optical, batch_ray, batch_t
                )
                if count == 0:
                    break
                runner.density(0, count, batch[:count])
                lookahead.weigh_batch(
                    batch, offsets, samples.step, np.float32(stop), slots, optical,
                    density, weights, visible,
                )  # fmt: skip

        run_workers(look, workers)

        kept = np.zeros(rays + 1, np.int64)
        np.cumsum(visible, out=kept[1:])
        count = int(kept[-1])
        ray_kept = np.empty(count, np.int64)
        t_kept, weights_kept, density_kept = np.empty((3, count), np.float32)
        color = np.empty((count, 3), np.float32)
        total, opacity, depth = (np.empty(s, np.float32) for s in ((rays, 3), rays, rays))
        in_sight = Places(*geometry, ray_kept, t_kept, ray_kept)
        parts = ray_shares(kept, workers)
        wanted = any(ctx.needs_input_grad)
        stored: list[list[Activations]] = [[] for _ in parts]

        def shade(index: int) -> None:
            first, last = parts[index]
            compositing.keep_visible(
                t, weights, density, offsets, kept, first, last,
                ray_kept, t_kept, weights_kept, density_kept,
            )  # fmt: skip
            runner = ChunkRunner(parameters, in_sight, *layout)
            keep = wanted and count / CHUNK * Activations.bytes_of(runner.widths) < KEEP_BYTES
            for low, high in chunks(kept[first], kept[last]):
                if keep:
                    stored[index].append(take_activations(runner.widths))
                    runner.adopt(stored[index][-1])
                runner.forward(low, high, color[low:high])
            compositing.accumulate(
                weights_kept, color, t_kept, kept, first, last, total, opacity, depth
            )

        run_workers(shade, workers)
        ctx.save_for_backward(*tensors)
        ctx.kept = (
            in_sight,
            kept,
            visible,
            weights_kept,
            density_kept,
            color,
            samples.step,
            layout,
            parts,
        )
        ctx.stored = stored if wanted else None
        return torch.from_numpy(total), torch.from_numpy(opacity), torch.from_numpy(depth)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, total: Tensor, opacity: Tensor, depth: Tensor):  # type: ignore[override]
        places, kept, visible, weights, density, color, step, layout, parts = ctx.kept
        stored, ctx.stored = ctx.stored, None  # a second backward pass computes again
        tensors = ctx.saved_tensors
        parameters = Parameters(*(t.detach().contiguous() for t in tensors))
        wanted = ctx.needs_input_grad[6:]
        incoming = [x.contiguous().numpy() for x in (total, opacity, depth)]
        workers = len(parts)
        density_gradient = np.empty_like(density)
        color_gradient = np.empty_like(color)
        channels = parameters.planes.shape[3]
        features = np.empty((len(density), channels), np.float32) if wanted[0] else None
        ray_term = torch.zeros_like(parameters.ray_term)
        runners = [
            GradientRunner(parameters, places, *layout, any(wanted[1:]), ray_term)
            for _ in range(workers)
        ]

        def work(index: int) -> None:
            first, last = parts[index]
            compositing.accumulate_backward(
                density, weights, color, places.t, kept, visible, step, first, last, *incoming,
                density_gradient, color_gradient,
            )  # fmt: skip
            ranges = chunks(kept[first], kept[last])
            activations = stored[index] if stored and stored[index] else [None] * len(ranges)
            for (low, high), forward in zip(ranges, activations, strict=True):
                part = slice(low, high)
                runners[index].backward(
                    low,
                    high,
                    density_gradient[part],
                    color_gradient[part],
                    None if features is None else features[part],
                    forward,
                )

        run_workers(work, workers)
        for used in stored or ():
            give_back_activations(used)
        planes = None
        if features is not None:
            planes = scatter_features(features, places, parameters.planes.shape)
        rest = (*total_gradients(runners), ray_term) if any(wanted[1:]) else ()
        found = (planes, *rest) if rest else (planes, *([None] * (len(tensors) - 1)))
        return (None,) * 6 + found


def render_rays_cpu(
    planes: Tensor,
    decoder: TriplaneDecoder,
    origins: Tensor,
    directions: Tensor,
    samples: Samples,
    stop: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Composite packed samples of rays through one or several triplanes.

    Args:
        planes: [B, 3, C, H, W], fp32.
        origins, directions: [B·R, 3], the rays of each triplane one after the other.
        samples: of all rays.
        stop: early stop, see :func:`renderer.compositing.composite_weights`.

    Returns:
        Σ w·colour [B·R, 3], Σ w [B·R], Σ w·t [B·R]; differentiable to planes and decoder.
    """
    parameters = fold(decoder, channel_last(planes), directions)
    results = _RenderRays.apply(
        origins.detach().contiguous(),
        directions.detach().contiguous(),
        samples,
        max(1, origins.shape[0] // planes.shape[0]),
        (decoder.color_channels, decoder.frequencies),
        stop,
        *parameters,
    )
    assert isinstance(results, tuple)
    return results
