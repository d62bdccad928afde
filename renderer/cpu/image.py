"""Rays to pixels without gradients: marching, density, early stop and colour in one sweep.

Legend: B triplanes, R rays of each, C channels, G cells along one side of the box.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from renderer.cpu import lookahead
from renderer.cpu.buffers import CHUNK, Places
from renderer.cpu.chunk import ChunkRunner
from renderer.cpu.field import channel_last, fold
from renderer.cpu.samples import marching_arguments
from renderer.cpu.threads import run_workers, shares, worker_count
from renderer.decoder import TriplaneDecoder


@torch.no_grad()
def sweep_rays(
    planes: Tensor,
    decoder: TriplaneDecoder,
    origins: Tensor,
    directions: Tensor,
    occupied: Tensor,
    *,
    steps: int,
    step: float,
    near: float,
    stop: float,
    least: float,
    jitter: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Composite rays through one or several triplanes.

    Args:
        planes: [B, 3, C, H, W] fp32.
        origins, directions: [B·R, 3], the rays of each triplane one after the other.
        occupied: bool [B, G, G, G].
        least: a sample that weighs less gets no colour of its own but the mean of its ray's
            others; 0 computes every colour that shows.

    Returns:
        Σ w·colour [B·R, 3], Σ w [B·R], Σ w·t [B·R].
    """
    rays = origins.shape[0]
    marching = marching_arguments(origins, directions, occupied, steps, step, near, jitter)
    parameters = fold(decoder, channel_last(planes), directions)
    total, mass = np.zeros((rays, 3), np.float32), np.zeros(rays, np.float32)
    opacity, distance = np.zeros((2, rays), np.float32)
    workers = worker_count()
    # Neighbouring rays cost about the same: interleaved blocks even the load out.
    blocks = shares(rays, workers * 8)
    geometry = (*marching[2:4], marching[5])

    def work(index: int) -> None:
        ray, t = np.empty(CHUNK, np.int64), np.empty(CHUNK, np.float32)
        density = np.empty(CHUNK, np.float32)
        # Fewer than a chunk wait for their colour when a batch adds at most a chunk.
        shown = np.empty(2 * CHUNK, np.int64)
        shown_t, weight = np.empty((2, 2 * CHUNK), np.float32)
        color = np.empty((CHUNK, 3), np.float32)
        layout = (decoder.color_channels, decoder.frequencies)
        runner = ChunkRunner(parameters, Places(*geometry, ray, t, ray), *layout)
        shader = ChunkRunner(parameters, Places(*geometry, shown, shown_t, shown), *layout)
        slots = np.empty((lookahead.SLOTS, 3), np.int64)
        optical, spans = np.empty(len(slots)), np.empty((len(slots), 2), np.float32)
        pending = 0
        for first, last in blocks[index::workers]:
            slots[:] = -1
            while True:
                count, first = lookahead.fill_from_grid(
                    *marching, first, last, slots, optical, spans, ray, t
                )
                if count == 0:
                    break
                runner.density(0, count, density[:count])
                # Colours wait until they fill a chunk: small products waste the core.
                found = lookahead.show_batch(
                    density, ray, t, step, np.float32(stop), steps, np.float32(least),
                    slots, optical, opacity, distance,
                    shown[pending:], shown_t[pending:], weight[pending:],
                )  # fmt: skip
                pending += found
                if pending >= CHUNK:
                    _shade(shader, CHUNK, color, shown, weight, total, mass)
                    pending -= CHUNK
                    for waiting in (shown, shown_t, weight):
                        waiting[:pending] = waiting[CHUNK : CHUNK + pending]
        if pending:
            _shade(shader, pending, color, shown, weight, total, mass)

    run_workers(work, workers)
    if least > 0:
        total *= (opacity / np.maximum(mass, 1e-8))[:, None]
    return torch.from_numpy(total), torch.from_numpy(opacity), torch.from_numpy(distance)


def _shade(
    shader: ChunkRunner,
    count: int,
    color: np.ndarray,
    ray: np.ndarray,
    weight: np.ndarray,
    total: np.ndarray,
    mass: np.ndarray,
) -> None:
    """Colour the first ``count`` waiting samples."""
    shader.forward(0, count, color[:count])
    lookahead.add_colors(color[:count], ray[:count], weight[:count], total, mass)
