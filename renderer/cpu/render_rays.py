"""Rays through triplanes to pixels in one function, differentiable where that is wanted.

Legend: R rays in all, V samples in sight, B triplanes, C channels, H W plane size.

Colour is computed, and gradients flow, only for the samples before a ray's early stop.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from renderer.cpu.buffers import CHUNK, Parameters, give_back_activations
from renderer.cpu.chunk import GradientRunner
from renderer.cpu.field import channel_last, fold, scatter_features, total_gradients
from renderer.cpu.kernels.compositing import SumGradients, composite_backward
from renderer.cpu.samples import march_of
from renderer.cpu.sweep import Sweep, sweep
from renderer.cpu.threads import run_workers
from renderer.decoder import TriplaneDecoder
from renderer.march_settings import RenderSettings


class _RenderRays(torch.autograd.Function):
    """A sweep's sums of weight × colour [R, 3], weights [R], weight × distance [R]."""

    @staticmethod
    def forward(ctx: Any, setting: Sweep, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        swept = sweep(setting, Parameters(*(t.detach().contiguous() for t in tensors)))
        ctx.save_for_backward(*tensors)
        ctx.kept = setting, swept.shown
        return tuple(torch.from_numpy(s) for s in (swept.total, swept.opacity, swept.distance))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, total: Tensor, opacity: Tensor, depth: Tensor):  # type: ignore[override]
        setting, shown = ctx.kept
        tensors = ctx.saved_tensors
        parameters = Parameters(*(t.detach().contiguous() for t in tensors))
        wanted = ctx.needs_input_grad[1:]
        incoming = SumGradients(*(x.contiguous().numpy() for x in (total, opacity, depth)))
        behind = np.zeros(len(total))
        counts = [sum(chunk.count for chunk in mine) for mine in shown]
        ends = np.cumsum(counts)
        places = setting.places(np.empty(ends[-1], np.int64), np.empty(ends[-1], np.float32))
        channels = parameters.planes.shape[3]
        features = np.empty((ends[-1], channels), np.float32) if wanted[0] else None
        ray_term = torch.zeros_like(parameters.ray_term)
        runners = [
            GradientRunner(parameters, places, *setting.layout, any(wanted[1:]), ray_term)
            for _ in shown
        ]

        def work(index: int) -> None:
            runner, end = runners[index], ends[index]
            density_gradient = np.empty(CHUNK, np.float32)
            color_gradient = np.empty((CHUNK, 3), np.float32)
            # From the back, as compositing goes.
            for chunk in reversed(shown[index]):
                n = chunk.count
                part = slice(end - n, end)
                end -= n
                places.ray[part], places.t[part] = chunk.ray[:n], chunk.t[:n]
                composite_backward(
                    chunk.composited(),
                    setting.march.step,
                    incoming,
                    behind,
                    density_gradient,
                    color_gradient,
                )
                # A second backward pass computes again.
                activations, chunk.activations = chunk.activations, None
                runner.backward(
                    part.start,
                    part.stop,
                    density_gradient[:n],
                    color_gradient[:n],
                    None if features is None else features[part],
                    activations and (activations, chunk.color[:n]),
                )
                if activations is not None:
                    give_back_activations([activations])

        run_workers(work, len(shown))
        planes = None
        if features is not None:
            planes = scatter_features(features, places, parameters.planes.shape)
        rest = (*total_gradients(runners), ray_term) if any(wanted[1:]) else ()
        return None, planes, *(rest or [None] * (len(tensors) - 1))


def render_rays_cpu(
    planes: Tensor,
    decoder: TriplaneDecoder,
    origins: Tensor,
    directions: Tensor,
    occupied: Tensor,
    settings: RenderSettings,
    jitter: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Composite rays through one or several triplanes.

    Args:
        planes: [B, 3, C, H, W], fp32.
        origins, directions: [R, 3], the rays of each triplane one after the other.
        occupied: bool [B, G, G, G].
        settings: its ``color_threshold`` counts where no gradients are wanted.

    Returns:
        Σ w·colour [R, 3], Σ w [R], Σ w·t [R]; differentiable to planes and decoder.
    """
    march = march_of(origins, directions, occupied, settings.steps, settings.near, jitter)
    parameters = fold(decoder, channel_last(planes), directions)
    recorded = torch.is_grad_enabled() and any(p.requires_grad for p in parameters)
    least = -1.0 if recorded else settings.color_threshold
    layout = decoder.color_channels, decoder.frequencies
    setting = Sweep(march, layout, settings.stop, least, recorded)
    if recorded:
        total, opacity, distance = _RenderRays.apply(setting, *parameters)  # type: ignore[misc]
        return total, opacity, distance
    swept = sweep(setting, parameters)
    total = swept.total
    if least > 0:
        total *= (swept.opacity / np.maximum(swept.mass, 1e-8))[:, None]
    return tuple(torch.from_numpy(s) for s in (total, swept.opacity, swept.distance))
