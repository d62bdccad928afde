"""Benchmarks of rendering: what each implementation does per second, side by side.

Legend: S samples, R rays, C channels, H W plane size.

Every figure comes from one process in which the sides take turns, so that they see the same
machine; the device's own limits are measured in the same run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from captures.cameras import orbit_cameras
from renderer.backend import resolve
from renderer.compositing import composite
from renderer.decoder import TriplaneDecoder
from renderer.field import query_field
from renderer.marching import march
from renderer.metrics import psnr
from renderer.occupancy import OccupancyGrid
from renderer.render import RenderSettings, build_occupancy, render_image, render_rays
from runtime.devices import select_device
from runtime.precision import cpu_has_bf16, matmul_precision
from runtime.seeds import generator
from studies.bench.bench_report import DENSE, OURS, REFERENCE, Report
from studies.bench.bench_scene import load_scene, make_scene
from studies.bench.timing import device_limits


@dataclass
class BenchRenderConfig:
    """Measure rendering: samples, images and occupancy refreshes."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""
    triplanes: Path | None = None
    """Triplane folder to measure with; a hand-made ball without it."""
    subject: str | None = None
    """Which of its subjects; the first without it."""
    plane_size: int = 64
    """Texels along one side of the ball's planes."""
    channels: int = 16
    """Channels of the ball's planes."""
    color_channels: int = 12
    """How many of them feed the colour network."""
    hidden: int = 64
    """Width of the ball's decoder."""
    samples: int = 131072
    """Samples of the cases of the field alone."""
    rays: int = 8192
    """Rays of the ray cases: pixels of several views, as fitting draws them."""
    image_size: int = 256
    """Pixels along one side of the rendered image."""
    steps: int = 192
    """Samples along the box's diagonal, also of dense sampling."""
    grid: int = 128
    """Cells along one side of the occupancy grid."""
    repeats: int = 5
    """Measurements of each figure, of which the median counts."""
    seed: int = 0
    """Fixes every random number."""
    json: Path | None = None
    """File for the figures."""
    table: Path | None = None
    """File for the Markdown table; it is printed in any case."""


def bench_render(config: BenchRenderConfig) -> None:
    """Measure and report; see :class:`BenchRenderConfig`."""
    device = select_device(config.device)
    if config.triplanes is not None:
        planes, decoder = load_scene(config.triplanes, config.subject)
    else:
        planes, decoder = make_scene(
            config.plane_size, config.channels, config.color_channels, config.hidden, config.seed
        )
    planes, decoder = planes.to(device), decoder.to(device)
    limits = device_limits(device)
    report = Report(config, device, limits, resolve("auto", planes, decoder=decoder).name)
    _ray_cases(report, config, planes, decoder)
    _sample_cases(report, config, planes, decoder)
    _image_case(report, config, planes, decoder)
    settings = RenderSettings(grid=config.grid)
    grid = OccupancyGrid(settings.grid, device)
    cells = settings.grid**3
    report.add(
        "occupancy refresh",
        {
            REFERENCE: lambda: grid.refresh(planes, decoder, impl="reference"),
            OURS: lambda: grid.refresh(planes, decoder),
        },
        cells,
        "cells/s",
        flops=_flops(decoder)[0] * cells,
    )
    report.finish()


def _flops(decoder: TriplaneDecoder) -> tuple[int, int]:
    """Floating-point operations of one sample forward, folded: density alone, and all."""
    hidden, density = decoder.density_in.weight.shape
    color = decoder.color_channels * (1 + 2 * decoder.frequencies)
    first = 2 * hidden * (density + 1)
    return first, first + 2 * hidden * (color + 2 * hidden + 3)


def _ray_cases(
    report: Report, config: BenchRenderConfig, planes: Tensor, decoder: TriplaneDecoder
) -> None:
    """Samples in occupied space to the pixels they make: what a fitting step renders.

    The reference gets its samples ready-made; ours finds them itself.
    """
    device = planes.device
    settings = RenderSettings(steps=config.steps, grid=config.grid)
    grid = build_occupancy(planes, decoder, settings)
    cameras = orbit_cameras(8, size=config.image_size).to(device)
    views = [cameras.image_rays(k) for k in range(8)]
    origins, directions = (torch.cat(parts) for parts in zip(*views, strict=True))
    chosen = torch.randint(
        len(origins), (config.rays,), generator=generator(config.seed, "bench rays")
    ).to(device)
    origins, directions = origins[chosen], directions[chosen]
    samples = march(origins, directions, grid, steps=settings.steps, near=settings.near)
    background = torch.ones(3, device=device)
    leaf = planes.detach().clone().requires_grad_()
    cotangent = torch.randn(config.rays, 3, device=device)

    def reference() -> Tensor:
        points = origins[samples.ray] + samples.t[:, None] * directions[samples.ray]
        density, color = query_field(
            leaf, decoder, points, directions, samples.ray, impl="reference"
        )
        return composite(density, color, samples, background, settings.stop).color

    def ours() -> Tensor:
        return render_rays(leaf, decoder, grid, origins, directions, 1.0, settings).color

    def in_bf16() -> Tensor:
        with matmul_precision("medium"):
            return ours()

    def forward(render: Callable[[], Tensor]) -> Tensor:
        with torch.no_grad():
            return render()

    def backward(render: Callable[[], Tensor], trained: bool) -> tuple[Tensor, ...]:
        decoder.requires_grad_(trained)
        wanted = [leaf, *(decoder.parameters() if trained else ())]
        with matmul_precision("medium" if render is in_bf16 else "highest"):
            found = torch.autograd.grad(render(), wanted, cotangent)
        decoder.requires_grad_(False)
        return found

    sides = {REFERENCE: reference, OURS: ours}
    if device.type == "cpu" and cpu_has_bf16():
        sides[f"{OURS}, bf16 products"] = in_bf16
    report.add(
        "rays, forward",
        {name: lambda side=side: forward(side) for name, side in sides.items()},
        len(samples),
        "samples/s",
    )
    for trained in (True, False):
        report.add(
            f"rays, forward + backward, decoder {'trained' if trained else 'frozen'}",
            {
                name: lambda side=side, trained=trained: backward(side, trained)
                for name, side in sides.items()
            },
            len(samples),
            "samples/s",
        )
    pairs = [(forward(reference), forward(ours))]
    pairs += zip(backward(reference, True), backward(ours, True), strict=True)
    apart = max(((a - b).norm() / a.norm()).item() for a, b in pairs)
    report.notes.append(
        f"rays: {config.rays} rays with {len(samples)} samples in occupied space; colours and "
        f"every gradient within ‖difference‖/‖reference‖ {apart:.1e}"
    )


def _sample_cases(
    report: Report, config: BenchRenderConfig, planes: Tensor, decoder: TriplaneDecoder
) -> None:
    """Density and colour of the same ray-coherent samples, whether they show or not."""
    device = planes.device
    cameras = orbit_cameras(1, size=256).to(device)
    origins, directions = cameras.image_rays(0)
    box = OccupancyGrid(1, device)
    samples = march(origins, directions, box, steps=config.steps)
    count = min(config.samples, len(samples))
    start = (len(samples) - count) // 2
    ray, t = samples.ray[start : start + count], samples.t[start : start + count]
    points = (origins[ray] + t[:, None] * directions[ray]).contiguous()

    def forward(impl: str) -> None:
        with torch.no_grad():
            query_field(planes, decoder, points, directions, ray, impl=impl)

    flops = _flops(decoder)[1] * count
    sides = {REFERENCE: lambda: forward("reference"), OURS: lambda: forward("auto")}
    report.add("field, forward", sides, count, "samples/s", flops)
    leaf = planes.detach().clone().requires_grad_()
    cotangents = torch.randn(count, device=device), torch.randn(count, 3, device=device)

    def backward(impl: str, trained: bool) -> None:
        decoder.requires_grad_(trained)
        outputs = query_field(leaf, decoder, points, directions, ray, impl=impl)
        wanted = [leaf, *(decoder.parameters() if trained else ())]
        torch.autograd.grad(outputs, wanted, cotangents)
        decoder.requires_grad_(False)

    for trained in (True, False):
        report.add(
            f"field, forward + backward, decoder {'trained' if trained else 'frozen'}",
            {
                REFERENCE: lambda trained=trained: backward("reference", trained),
                OURS: lambda trained=trained: backward("auto", trained),
            },
            count,
            "samples/s",
            flops * (3 if trained else 2),
        )


def _image_case(
    report: Report, config: BenchRenderConfig, planes: Tensor, decoder: TriplaneDecoder
) -> None:
    """One image: dense sampling, occupied space through the reference, ours."""
    settings = RenderSettings(steps=config.steps, grid=config.grid)
    camera = orbit_cameras(8, size=config.image_size)[1]
    grid = build_occupancy(planes, decoder, settings)
    everything = OccupancyGrid(1, planes.device)

    def image(cells: OccupancyGrid, impl: str, steps: int = config.steps) -> Tensor:
        fine = RenderSettings(steps=steps, grid=config.grid)
        rendered = render_image(
            planes, decoder, camera, 1.0, fine, cells, rays_per_chunk=16384, impl=impl
        )
        return rendered.color

    # The slow sides need seconds or minutes an image: fewer turns there.
    report.add(
        f"image {config.image_size}²",
        {
            DENSE: lambda: image(everything, "reference"),
            REFERENCE: lambda: image(grid, "reference"),
            OURS: lambda: image(grid, "auto"),
        },
        1,
        "frames/s",
        repeats=min(config.repeats, 3),
    )
    truth = image(grid, "reference", 1024)
    for name, picture in (
        (DENSE, image(everything, "reference")),
        (OURS, image(grid, "auto")),
    ):
        report.notes.append(f"image, {name}: {psnr(picture, truth).item():.1f} dB to 1024 steps")
