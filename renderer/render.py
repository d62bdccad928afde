"""Rendering: triplanes and the shared decoder to pixels.

Legend: B triplanes, R rays of each, C channels, H W plane size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from captures.cameras import Cameras
from renderer.backend import resolve
from renderer.decoder import TriplaneDecoder
from renderer.march_settings import RenderSettings as RenderSettings
from renderer.occupancy import OccupancyGrid
from renderer.samples import Rendered
from renderer.triplane import check_planes


def build_occupancy(
    planes: Tensor, decoder: TriplaneDecoder, settings: RenderSettings | None = None
) -> OccupancyGrid:
    """Occupancy of a finished triplane [3, C, H, W]: one refresh and one dilation."""
    check_planes(planes, batched=False)
    settings = settings or RenderSettings()
    grid = OccupancyGrid(settings.grid, planes.device)
    grid.refresh(planes, decoder, decay=0.0)
    grid.keep(settings.threshold)
    return grid


def render_rays(
    planes: Tensor,
    decoder: TriplaneDecoder,
    grid: OccupancyGrid | Sequence[OccupancyGrid],
    origins: Tensor,
    directions: Tensor,
    background: Tensor | float = 1.0,
    settings: RenderSettings | None = None,
    jitter: Tensor | None = None,
    *,
    impl: str = "auto",
) -> Rendered:
    """Render rays through one triplane, or through several with rays of their own.

    Args:
        planes: [3, C, H, W] in [-1, 1]; or [B, 3, C, H, W], then the rays' tensors and the
            results have a leading B and ``grid`` is a sequence of B grids of one resolution.
        grid: occupied space, from :func:`build_occupancy` or kept up to date while fitting.
        origins, directions: [R, 3], unit directions.
        background: a grey level, [3] or [R, 3]; sRGB in [0, 1].
        jitter: shift of each ray's samples in steps, [R] in [0, 1); 0.5 without.
        impl: see :mod:`renderer.backend`. Only "reference" computes colour where it cannot show.

    Returns:
        Color [R, 3], opacity [R], depth [R]. Differentiable to planes, decoder and background.
    """
    settings = settings or RenderSettings()
    if not isinstance(background, Tensor):
        background = planes.new_full((3,), float(background))
    several = planes.ndim == 5
    check_planes(planes, batched=several)
    grids = [grid] if isinstance(grid, OccupancyGrid) else list(grid)
    if not several:
        planes, origins, directions = planes[None], origins[None], directions[None]
        jitter = None if jitter is None else jitter[None]
    batch, rays = origins.shape[:2]
    if len(grids) != len(planes) or batch != len(planes) or directions.shape != origins.shape:
        raise ValueError(
            f"{len(planes)} triplanes need as many grids and sets of rays; got {len(grids)} grids, "
            f"origins {list(origins.shape)} and directions {list(directions.shape)}"
        )
    per_ray = background.expand(batch, rays, 3) if background.ndim < 3 else background
    rays_given = (origins, directions)
    given = (planes, *rays_given) if jitter is None else (planes, *rays_given, jitter)
    backend = resolve(impl, *given, decoder=decoder, rays=rays_given)
    occupied = torch.stack([g.occupied for g in grids])
    rendered = backend.render_rays(
        planes, decoder, occupied, origins, directions, per_ray, settings, jitter
    )
    if several:
        return rendered
    return Rendered(rendered.color[0], rendered.opacity[0], rendered.depth[0])


@torch.no_grad()
def render_image(
    planes: Tensor,
    decoder: TriplaneDecoder,
    cameras: Cameras,
    background: Tensor | float = 1.0,
    settings: RenderSettings | None = None,
    grid: OccupancyGrid | None = None,
    rays_per_chunk: int = 65536,
    *,
    impl: str = "auto",
) -> Rendered:
    """Render the first of ``cameras`` as an image.

    Args:
        planes: [3, C, H, W].
        grid: occupancy, built here when not given; pass it when rendering many views.
        rays_per_chunk: bounds memory.
        impl: see :mod:`renderer.backend`.

    Returns:
        Color [H, W, 3] clamped to [0, 1], opacity [H, W], depth [H, W]; without gradients.
    """
    views = render_images(
        planes, decoder, cameras[0], background, settings, grid, rays_per_chunk, impl=impl
    )
    return Rendered(views.color[0], views.opacity[0], views.depth[0])


@torch.no_grad()
def render_images(
    planes: Tensor,
    decoder: TriplaneDecoder,
    cameras: Cameras,
    background: Tensor | float = 1.0,
    settings: RenderSettings | None = None,
    grid: OccupancyGrid | None = None,
    rays_per_chunk: int = 65536,
    *,
    impl: str = "auto",
) -> Rendered:
    """Render every one of N ``cameras``; the occupancy is built once.

    Args:
        planes: [3, C, H, W].
        background: a grey level or [3].
        grid, rays_per_chunk, impl: see :func:`render_image`.

    Returns:
        Color [N, H, W, 3] clamped to [0, 1], opacity [N, H, W], depth [N, H, W]; without gradients.
    """
    settings = settings or RenderSettings()
    cameras = cameras.to(planes.device, planes.dtype)
    if grid is None:
        grid = build_occupancy(planes, decoder, settings)
    parts = []
    for view in range(len(cameras)):
        origins, directions = cameras.image_rays(view)
        parts += [
            render_rays(planes, decoder, grid, o, d, background, settings, impl=impl)
            for o, d in zip(
                origins.split(rays_per_chunk), directions.split(rays_per_chunk), strict=True
            )
        ]
    return Rendered(
        torch.cat([p.color for p in parts]).clamp(0, 1),
        torch.cat([p.opacity for p in parts]),
        torch.cat([p.depth for p in parts]),
    ).reshape(len(cameras), cameras.height, cameras.width)
