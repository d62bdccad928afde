"""Ray marching: the sample positions along rays that lie in occupied cells, packed over rays.

Legend: R rays, S samples of all rays together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from renderer.backend import resolve
from renderer.occupancy import OccupancyGrid
from renderer.samples import Samples


@torch.no_grad()
def march(
    origins: Tensor,
    directions: Tensor,
    grid: OccupancyGrid,
    *,
    steps: int = 1024,
    near: float = 0.2,
    jitter: Tensor | None = None,
    impl: str = "auto",
) -> Samples:
    """Place samples at ``entry + (i + u) · step`` for every i that falls in an occupied cell.

    Args:
        origins, directions: [R, 3]; directions have unit length.
        grid: occupied cells.
        steps: samples along the box's diagonal; fixes the spacing, see
            :func:`renderer.samples.step_length`.
        near: no sample lies closer to the origin, world units.
        jitter: u of each ray in [0, 1), [R]; 0.5 without.
        impl: see :mod:`renderer.backend`; all place the same samples.

    Returns:
        Packed samples. Not differentiable.
    """
    count = origins.shape[0]
    if origins.shape != (count, 3) or directions.shape != (count, 3):
        raise ValueError(f"origins and directions must be [R, 3], got {list(origins.shape)}")
    given = (origins, directions) if jitter is None else (origins, directions, jitter)
    backend = resolve(impl, *given)
    return backend.march(origins, directions, grid.occupied, steps=steps, near=near, jitter=jitter)
