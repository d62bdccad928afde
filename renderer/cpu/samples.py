"""Packed samples of rays through one or several occupancy grids.

Legend: R rays, B triplanes, G cells along one side of the box, S samples.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from renderer.cpu.kernels import marching
from renderer.cpu.threads import run_workers, shares, worker_count

TINY = np.float32(torch.finfo(torch.float32).tiny ** 0.5)


def blocks_of(occupied: np.ndarray) -> np.ndarray:
    """Coarse occupancy of cells [B, G, G, G], see :func:`marching.block_occupancy`."""
    count, size = occupied.shape[:2]
    side = -(-size // marching.BLOCK)
    blocks = np.empty((count, side, side, side), np.uint8)
    marching.block_occupancy(occupied, blocks)
    return blocks


def marching_arguments(
    origins: Tensor,
    directions: Tensor,
    occupied: Tensor,
    steps: int,
    step: float,
    near: float,
    jitter: Tensor | None,
) -> tuple:
    """Return what the marching kernels take first, in their order.

    Args:
        origins, directions: [B·R, 3] fp32, the rays of each triplane one after the other.
        occupied: bool [B, G, G, G].
        steps, step, near, jitter: see :func:`renderer.marching.march`.
    """
    rays = origins.shape[0]
    cells = occupied.contiguous().numpy().view(np.uint8)
    shift = np.full(rays, 0.5, np.float32) if jitter is None else jitter.contiguous().numpy()
    return (
        cells,
        blocks_of(cells),
        origins.detach().contiguous().numpy(),
        directions.detach().contiguous().numpy(),
        shift,
        max(1, rays // cells.shape[0]),
        steps,
        np.float32(step),
        np.float32(near),
        TINY,
    )


def march_cpu(
    origins: Tensor,
    directions: Tensor,
    occupied: Tensor,
    *,
    steps: int,
    step: float,
    near: float,
    jitter: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Samples in occupied cells: ray [S], t [S], offsets [B·R + 1].

    The arguments are those of :func:`marching_arguments`.
    """
    rays = origins.shape[0]
    setting = marching_arguments(origins, directions, occupied, steps, step, near, jitter)
    workers = worker_count()
    parts = shares(rays, workers)
    counts, begins = np.empty((2, rays), np.int64)
    run_workers(lambda k: marching.count_samples(*setting, *parts[k], counts, begins), workers)
    offsets = torch.zeros(rays + 1, dtype=torch.long)
    offset_array = offsets.numpy()
    np.cumsum(counts, out=offset_array[1:])
    total = int(offset_array[-1])
    ray, t = torch.empty(total, dtype=torch.long), torch.empty(total)
    ray_array, t_array = ray.numpy(), t.numpy()
    run_workers(
        lambda k: marching.write_samples(
            *setting, *parts[k], offset_array, begins, ray_array, t_array
        ),
        workers,
    )
    return ray, t, offsets
