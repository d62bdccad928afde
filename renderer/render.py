"""Rendering: triplanes and the shared decoder to pixels.

Legend: B triplanes, R rays of each, C channels, H W plane size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from captures.cameras import Cameras
from renderer.backend import choose, uses_cpu_kernels
from renderer.compositing import composite, composite_weights
from renderer.decoder import TriplaneDecoder
from renderer.field import query_density, query_field
from renderer.march_settings import RenderSettings as RenderSettings
from renderer.marching import march
from renderer.occupancy import OccupancyGrid
from renderer.samples import Rendered, Samples, step_length
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
    given = (
        (planes, origins, directions) if jitter is None else (planes, origins, directions, jitter)
    )
    chosen = choose(impl, *given, decoder=decoder)
    if chosen == "cuda":
        rendered = _render_on_gpu(
            planes, decoder, grids, origins, directions, per_ray, settings, jitter
        )
    elif chosen == "torch" and uses_cpu_kernels(*given, decoder=decoder):
        rendered = _render_on_cpu(
            planes, decoder, grids, origins, directions, per_ray, settings, jitter
        )
    else:
        render_one = _render_reference if chosen == "reference" else _render_visible
        parts = [
            render_one(
                planes[b],
                decoder,
                grids[b],
                origins[b],
                directions[b],
                per_ray[b],
                settings,
                None if jitter is None else jitter[b],
            )
            for b in range(batch)
        ]
        rendered = Rendered(
            torch.stack([p.color for p in parts]),
            torch.stack([p.opacity for p in parts]),
            torch.stack([p.depth for p in parts]),
        )
    if several:
        return rendered
    return Rendered(rendered.color[0], rendered.opacity[0], rendered.depth[0])


def _render_reference(
    planes: Tensor,
    decoder: TriplaneDecoder,
    grid: OccupancyGrid,
    origins: Tensor,
    directions: Tensor,
    background: Tensor,
    settings: RenderSettings,
    jitter: Tensor | None,
) -> Rendered:
    """Plain: density and colour of every sample."""
    samples = march(
        origins,
        directions,
        grid,
        steps=settings.steps,
        near=settings.near,
        jitter=jitter,
        impl="reference",
    )
    points = origins[samples.ray] + samples.t[:, None] * directions[samples.ray]
    density, color = query_field(planes, decoder, points, directions, samples.ray, impl="reference")
    return composite(density, color, samples, background, settings.stop)


def _render_visible(
    planes: Tensor,
    decoder: TriplaneDecoder,
    grid: OccupancyGrid,
    origins: Tensor,
    directions: Tensor,
    background: Tensor,
    settings: RenderSettings,
    jitter: Tensor | None,
) -> Rendered:
    """A first pass finds the samples that show; only they get colour and gradients."""
    samples = march(
        origins, directions, grid, steps=settings.steps, near=settings.near, jitter=jitter
    )
    with torch.no_grad():
        points = origins[samples.ray] + samples.t[:, None] * directions[samples.ray]
        density = query_density(planes, decoder, points)
        shown = torch.nonzero(composite_weights(density, samples, settings.stop))[:, 0]
        offsets = torch.searchsorted(
            samples.ray[shown], torch.arange(len(samples.offsets)).to(shown)
        )
    samples = Samples(samples.ray[shown], samples.t[shown], offsets, samples.step)
    points = origins[samples.ray] + samples.t[:, None] * directions[samples.ray]
    density, color = query_field(planes, decoder, points, directions, samples.ray)
    # What shows was decided above; rounding here must not stop a ray earlier.
    return composite(density, color, samples, background, stop=0.0)


def _render_on_gpu(
    planes: Tensor,
    decoder: TriplaneDecoder,
    grids: list[OccupancyGrid],
    origins: Tensor,
    directions: Tensor,
    background: Tensor,
    settings: RenderSettings,
    jitter: Tensor | None,
) -> Rendered:
    """CUDA kernels; all triplanes in one call."""
    from renderer.cuda import ops

    batch, rays = origins.shape[:2]
    rendered = ops.render_rays(
        planes,
        decoder,
        torch.stack([g.occupied for g in grids]),
        origins.reshape(-1, 3),
        directions.reshape(-1, 3),
        background.reshape(-1, 3),
        steps=settings.steps,
        near=settings.near,
        stop=settings.stop,
        jitter=None if jitter is None else jitter.reshape(-1),
    )
    return rendered.reshape(batch, rays)


def _render_on_cpu(
    planes: Tensor,
    decoder: TriplaneDecoder,
    grids: list[OccupancyGrid],
    origins: Tensor,
    directions: Tensor,
    background: Tensor,
    settings: RenderSettings,
    jitter: Tensor | None,
) -> Rendered:
    """Compiled kernels; all triplanes in one packed call."""
    from renderer.cpu.render_rays import render_rays_cpu

    shape = origins.shape[:2]
    total, opacity, distance = render_rays_cpu(
        planes,
        decoder,
        origins.reshape(-1, 3),
        directions.reshape(-1, 3),
        torch.stack([g.occupied for g in grids]),
        steps=settings.steps,
        step=step_length(settings.steps),
        near=settings.near,
        stop=settings.stop,
        least=settings.color_threshold,
        jitter=None if jitter is None else jitter.reshape(-1),
    )
    color = total.view(*shape, 3) + (1 - opacity.view(shape))[..., None] * background
    depth = distance / opacity.clamp(min=1e-8)
    return Rendered(color, opacity.view(shape), depth.view(shape))


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
