"""Ray marching: the sample positions along rays that lie in occupied cells, packed over rays.

Legend: R rays, S samples of all rays together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from renderer.backend import choose, uses_cpu_kernels
from renderer.occupancy import OccupancyGrid
from renderer.samples import Samples, step_length


def intersect_box(origins: Tensor, directions: Tensor, near: float) -> tuple[Tensor, Tensor]:
    """Entry and exit distance of rays through [-1, 1]³, [R] each; exit < entry for a miss.

    Args:
        origins, directions: [R, 3].
        near: smallest distance allowed for the entry, world units.
    """
    # A zero component would give 0 · inf; a tiny one gives a huge, harmless distance.
    tiny = torch.finfo(directions.dtype).tiny ** 0.5
    safe = torch.where(directions.abs() < tiny, torch.full_like(directions, tiny), directions)
    a, b = (-1 - origins) / safe, (1 - origins) / safe
    entry = torch.minimum(a, b).amax(dim=-1).clamp(min=near)
    return entry, torch.maximum(a, b).amin(dim=-1)


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
        steps: samples along the box's diagonal; fixes the spacing, see :func:`step_length`.
        near: no sample lies closer to the origin, world units.
        jitter: u of each ray in [0, 1), [R]; 0.5 without.
        impl: see :mod:`renderer.backend`; all place the same samples.

    Returns:
        Packed samples. Not differentiable.
    """
    count = origins.shape[0]
    if origins.shape != (count, 3) or directions.shape != (count, 3):
        raise ValueError(f"origins and directions must be [R, 3], got {list(origins.shape)}")
    step = step_length(steps)
    given = (origins, directions) if jitter is None else (origins, directions, jitter)
    chosen = choose(impl, *given)
    if chosen == "cuda":
        from renderer.cuda import ops

        return ops.march(origins, directions, grid.occupied, steps=steps, near=near, jitter=jitter)
    if chosen == "torch" and uses_cpu_kernels(*given):
        from renderer.cpu.samples import march_cpu

        found = march_cpu(
            origins,
            directions,
            grid.occupied[None],
            steps=steps,
            step=step,
            near=near,
            jitter=jitter,
        )
        return Samples(*found, step)
    entry, leave = intersect_box(origins, directions, near)
    offset = 0.5 if jitter is None else jitter
    first = entry + offset * step
    lattice = torch.arange(steps, device=origins.device, dtype=origins.dtype) * step
    rays, distances = [], []
    chunk = max(1, 2**21 // steps)
    for start in range(0, count, chunk):
        part = slice(start, start + chunk)
        t = first[part, None] + lattice
        ray, index = torch.nonzero(t < leave[part, None], as_tuple=True)
        t = t[ray, index]
        points = origins[part][ray] + t[:, None] * directions[part][ray]
        kept = grid.contains(points)
        rays.append(ray[kept] + start)
        distances.append(t[kept])
    ray = torch.cat(rays) if rays else torch.zeros(0, dtype=torch.long, device=origins.device)
    t = torch.cat(distances) if distances else origins.new_zeros(0)
    offsets = torch.zeros(count + 1, dtype=torch.long, device=origins.device)
    offsets[1:] = torch.bincount(ray, minlength=count).cumsum(0)
    return Samples(ray, t, offsets, step)
