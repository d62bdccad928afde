"""Benchmarks: what each implementation of the renderer does per second, side by side.

Legend: S samples, R rays, C channels, H W plane size.

Every figure comes from one process in which the sides take turns, so that they see the same
machine; the device's own limits are measured in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from renderer.backend import auto_means, choose
from renderer.bench_scene import load_scene, make_scene
from renderer.bench_timing import (
    device_limits,
    interleaved,
    machine,
    markdown,
    peak_memory,
)
from renderer.cameras import orbit_cameras
from renderer.decoder import TriplaneDecoder
from renderer.field import query_field
from renderer.fitting import FitSettings, SubjectFit, held_out_quality, new_planes
from renderer.marching import march
from renderer.metrics import psnr
from renderer.multiview import MultiViewSet
from renderer.occupancy import OccupancyGrid
from renderer.ray_pool import RayPool
from renderer.render import RenderSettings, build_occupancy, render_image
from runtime.devices import select_device
from runtime.files import write_json, write_text

OURS = "ours"
REFERENCE = "plain reference"
DENSE = "dense sampling"


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
    """Samples of the forward and backward cases."""
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


@dataclass
class BenchFitConfig:
    """Measure fitting: a whole step, and the time to reach a quality."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""
    root: Path = Path("data/example")
    """Multi-view set to fit."""
    convention: str | None = None
    """Camera convention of a set without dataset.json, e.g. rodinhd."""
    subject: str | None = None
    """Which of its subjects; the first without it."""
    triplanes: Path | None = None
    """Triplane folder whose decoder is used, frozen, from the mean of whose triplanes the time to
    a quality is counted; a random decoder without it."""
    plane_size: int = 64
    """Texels along one side of the planes."""
    channels: int = 16
    """Channels of the planes."""
    color_channels: int = 12
    """How many of them feed the colour network."""
    hidden: int = 64
    """Width of the decoder."""
    fit: FitSettings = field(default_factory=lambda: FitSettings(rays=1024, steps=192, grid=48))
    """Settings of the fitting step."""
    warm_steps: int = 60
    """Steps before the measurement, so that space has emptied as it does in use."""
    repeats: int = 5
    """Measurements of each figure, of which the median counts."""
    target_psnr: float | None = None
    """Also measure the time until held-out views reach this many dB."""
    target_limit: float = 300.0
    """Seconds after which a side that has not reached it is given up."""
    target_every: int = 25
    """Steps between looks at the held-out views; their time is not counted."""
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
    report = Report(config, device, limits, choose("auto", planes, decoder=decoder))
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


class Report:
    """Collects rows and writes them as JSON and as a table."""

    def __init__(self, config: Any, device: torch.device, limits: dict[str, float], ours: str):
        self.config, self.device, self.limits = config, device, limits
        self.rows: list[dict[str, Any]] = []
        self.notes = [f"ours: impl={ours}"]

    def add(
        self,
        case: str,
        sides: dict[str, Callable[[], Any]],
        work: int,
        unit: str,
        flops: float | None = None,
        repeats: int | None = None,
    ) -> dict[str, float]:
        """Measure the sides of a case, slowest first by custom.

        Args:
            work: things done by one call, for the rate.
            flops: of our side's matrix products in one call, folded, without recomputation.

        Returns:
            Median seconds of each side.
        """
        seconds = interleaved(sides, self.device, repeats or self.config.repeats)
        slowest = max(seconds.values())
        peak = self.limits.get("matmul_float16_tflops", self.limits["matmul_float32_tflops"])
        for side, call in sides.items():
            share = flops / seconds[side] / peak / 1e12 if flops and side == OURS else None
            self.rows.append(
                {
                    "case": case,
                    "side": side,
                    "seconds": seconds[side],
                    "rate": work / seconds[side],
                    "unit": unit,
                    "speedup": slowest / seconds[side],
                    "peak_mib": peak_memory(call, self.device),
                    "limit_share": share,
                }
            )
            print(f"{case}, {side}: {1000 * seconds[side]:.1f} ms", flush=True)
        return seconds

    def finish(self) -> None:
        """Print the table and write the files asked for."""
        content = {
            "machine": machine(self.device),
            "limits": self.limits,
            "settings": {k: _plain(v) for k, v in vars(self.config).items()},
            "rows": self.rows,
            "notes": self.notes,
        }
        table = markdown(content)
        print("\n" + table)
        if self.config.json is not None:
            write_json(self.config.json, content)
        if self.config.table is not None:
            write_text(self.config.table, table)


def _plain(value: Any) -> Any:
    if isinstance(value, FitSettings):
        return vars(value)
    return str(value) if isinstance(value, Path) else value


def _flops(decoder: TriplaneDecoder) -> tuple[int, int]:
    """Floating-point operations of one sample forward, folded: density alone, and all."""
    hidden, density = decoder.density_in.weight.shape
    color = decoder.color_channels * (1 + 2 * decoder.frequencies)
    first = 2 * hidden * (density + 1)
    return first, first + 2 * hidden * (color + 2 * hidden + 3)


def _sample_cases(
    report: Report, config: BenchRenderConfig, planes: Tensor, decoder: TriplaneDecoder
) -> None:
    """The same ray-coherent samples through each implementation."""
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
    report.add("forward", sides, count, "samples/s", flops)
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
            f"forward + backward, decoder {'trained' if trained else 'frozen'}",
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


def bench_fit(config: BenchFitConfig) -> None:
    """Measure and report; see :class:`BenchFitConfig`."""
    device = select_device(config.device)
    data = MultiViewSet(config.root, config.convention)
    name = config.subject or data.split("train")[0]
    views = data.load(name, data.split_views("train", name))
    shape = (config.channels, config.plane_size)
    start = new_planes(name, config.seed, *shape, config.fit.init_std)
    if config.triplanes is not None:
        start, decoder = load_scene(config.triplanes, None)
    else:
        _, decoder = make_scene(
            config.plane_size, config.channels, config.color_channels, config.hidden, config.seed
        )
    decoder = decoder.to(device)
    limits = device_limits(device)
    report = Report(config, device, limits, choose("auto", start.to(device), decoder=decoder))

    rays = RayPool(views, device)

    def new_fit(side: str) -> SubjectFit:
        settings = config.fit
        if side == DENSE:
            settings = replace(settings, grid_every=10**9)
        fit = SubjectFit(name, rays, start, decoder, settings, seed=config.seed, total=10**6)
        if side == DENSE:
            fit.grid.occupied[:] = True
        return fit

    sides = {side: new_fit(side) for side in (DENSE, REFERENCE, OURS)}
    for fit in sides.values():
        for _ in range(config.warm_steps):
            fit.step()

    def step(side: str) -> None:
        with _side(side):
            sides[side].step()

    calls = {side: (lambda side=side: step(side)) for side in sides}
    report.add("fitting step", calls, config.fit.rays, "rays/s")
    if config.target_psnr is not None:
        held_out = data.load(name, data.split_views("test", name))
        for side in (OURS, REFERENCE, DENSE):
            seconds, quality = _time_to_quality(config, side, new_fit(side), held_out)
            reached = "" if quality >= config.target_psnr else " (given up)"
            report.notes.append(
                f"{side}: {quality:.2f} dB on held-out views after {seconds:.1f} s{reached}"
            )
            print(report.notes[-1], flush=True)
    report.finish()


def _side(side: str) -> AbstractContextManager:
    return nullcontext() if side == OURS else auto_means("reference")


def _time_to_quality(config: BenchFitConfig, side: str, fit: SubjectFit, held_out) -> tuple:
    """Seconds of fitting until held-out views reach the target; their quality then."""
    assert config.target_psnr is not None
    seconds, quality = 0.0, 0.0
    settings = config.fit.render_settings()
    while seconds < config.target_limit:
        with _side(side):
            for _ in range(config.target_every):
                begun = time.perf_counter()
                fit.step()
                seconds += time.perf_counter() - begun
        quality = held_out_quality(fit.planes.detach(), fit.decoder, held_out, settings).mean_psnr
        if quality >= config.target_psnr:
            break
    return seconds, quality
