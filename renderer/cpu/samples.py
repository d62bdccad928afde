"""Packed samples of rays through one or several occupancy grids.

Legend: R rays, B triplanes, G cells along one side of the box, S samples.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from renderer.cpu.kernels import marching
from renderer.cpu.kernels.marching import March
from renderer.cpu.threads import run_workers, shares, worker_count
from renderer.samples import step_length

TINY = np.float32(torch.finfo(torch.float32).tiny ** 0.5)


def _blocks(occupied: np.ndarray) -> np.ndarray:
    """Coarse occupancy of cells [B, G, G, G], see :func:`marching.block_occupancy`."""
    count, size = occupied.shape[:2]
    side = -(-size // marching.BLOCK)
    blocks = np.empty((count, side, side, side), np.uint8)
    marching.block_occupancy(occupied, blocks)
    return blocks


def march_of(
    origins: Tensor,
    directions: Tensor,
    occupied: Tensor,
    steps: int,
    near: float,
    jitter: Tensor | None,
) -> March:
    """Return what the marching kernels read.

    Args:
        origins, directions: [B·R, 3] fp32, the rays of each triplane one after the other.
        occupied: bool [B, G, G, G].
        steps, near, jitter: see :func:`renderer.marching.march`.
    """
    rays = origins.shape[0]
    cells = occupied.contiguous().numpy().view(np.uint8)
    shift = np.full(rays, 0.5, np.float32) if jitter is None else jitter.contiguous().numpy()
    return March(
        cells,
        _blocks(cells),
        origins.detach().contiguous().numpy(),
        directions.detach().contiguous().numpy(),
        shift,
        max(1, rays // cells.shape[0]),
        steps,
        np.float32(step_length(steps)),
        np.float32(near),
        TINY,
    )


def march_cpu(march: March) -> tuple[Tensor, Tensor, Tensor]:
    """Samples in occupied cells: ray [S], t [S], offsets [B·R + 1]."""
    rays = len(march.origins)
    workers = worker_count()
    parts = shares(rays, workers)
    counts, begins = np.empty((2, rays), np.int64)
    run_workers(lambda k: marching.count_samples(march, *parts[k], counts, begins), workers)
    offsets = torch.zeros(rays + 1, dtype=torch.long)
    offset_array = offsets.numpy()
    np.cumsum(counts, out=offset_array[1:])
    total = int(offset_array[-1])
    ray, t = torch.empty(total, dtype=torch.long), torch.empty(total)
    ray_array, t_array = ray.numpy(), t.numpy()
    run_workers(
        lambda k: marching.write_samples(
            march, *parts[k], offset_array, begins, ray_array, t_array
        ),
        workers,
    )
    return ray, t, offsets
