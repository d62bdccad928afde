"""Rendering: one triplane and the shared decoder to pixels.

Legend: R rays, C channels, H W plane size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from renderer.cameras import Cameras
from renderer.compositing import Rendered, composite
from renderer.decoder import TriplaneDecoder
from renderer.field import query_field
from renderer.marching import march
from renderer.occupancy import OccupancyGrid
from renderer.triplane import check_planes


@dataclass
class RenderSettings:
    """How rays are marched."""

    steps: int = 1024
    """Samples along the box's diagonal; the spacing is 2√3 / steps world units."""
    near: float = 0.2
    """No sample lies closer to the camera, in world units."""
    stop: float = 1e-4
    """Samples behind a transmittance below this are ignored."""
    grid: int = 128
    """Cells along one side of the occupancy grid."""
    threshold: float = 0.1
    """A finished triplane's cell counts as occupied above this density (per world unit)."""


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
    grid: OccupancyGrid,
    origins: Tensor,
    directions: Tensor,
    background: Tensor | float = 1.0,
    settings: RenderSettings | None = None,
    jitter: Tensor | None = None,
) -> Rendered:
    """Render rays through one triplane.

    Args:
        planes: [3, C, H, W] in [-1, 1].
        grid: occupied space, from :func:`build_occupancy` or kept up to date while fitting.
        origins, directions: [R, 3], unit directions.
        background: a grey level, [3] or [R, 3]; sRGB in [0, 1].
        jitter: shift of each ray's samples in steps, [R] in [0, 1); 0.5 without.

    Returns:
        Color [R, 3], opacity [R], depth [R]. Differentiable to planes, decoder and background.
    """
    check_planes(planes, batched=False)
    settings = settings or RenderSettings()
    if not isinstance(background, Tensor):
        background = planes.new_full((3,), float(background))
    samples = march(
        origins, directions, grid, steps=settings.steps, near=settings.near, jitter=jitter
    )
    points = origins[samples.ray] + samples.t[:, None] * directions[samples.ray]
    density, color = query_field(planes, decoder, points, directions, samples.ray)
    return composite(density, color, samples, background, settings.stop)


@torch.no_grad()
def render_image(
    planes: Tensor,
    decoder: TriplaneDecoder,
    cameras: Cameras,
    background: Tensor | float = 1.0,
    settings: RenderSettings | None = None,
    grid: OccupancyGrid | None = None,
    rays_per_chunk: int = 16384,
) -> Rendered:
    """Render the first of ``cameras`` as an image.

    Args:
        planes: [3, C, H, W].
        grid: occupancy, built here when not given; pass it when rendering many views.
        rays_per_chunk: bounds memory.

    Returns:
        Color [H, W, 3] clamped to [0, 1], opacity [H, W], depth [H, W]; without gradients.
    """
    settings = settings or RenderSettings()
    cameras = cameras.to(planes.device, planes.dtype)
    if grid is None:
        grid = build_occupancy(planes, decoder, settings)
    origins, directions = cameras.image_rays(0)
    parts = [
        render_rays(planes, decoder, grid, o, d, background, settings)
        for o, d in zip(
            origins.split(rays_per_chunk), directions.split(rays_per_chunk), strict=True
        )
    ]
    return Rendered(
        torch.cat([p.color for p in parts]).clamp(0, 1),
        torch.cat([p.opacity for p in parts]),
        torch.cat([p.depth for p in parts]),
    ).reshape(cameras.height, cameras.width)
