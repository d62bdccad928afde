"""Benchmarks of fitting: a whole step, and the time to a quality, side by side.

Every figure comes from one process in which the sides take turns, so that they see the same
machine; the device's own limits are measured in the same run.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from captures.multiview import MultiViewSet
from captures.selection import SetConvention
from fitting.ray_pool import RayPool
from fitting.subject_fit import FitSettings, SubjectFit, held_out_quality, new_planes
from renderer.backend import auto_means, resolve
from renderer.fitted_set import FittedSet
from renderer.triplane import resize_planes
from runtime.config import own_first
from runtime.devices import select_device
from studies.bench.bench_report import DENSE, OURS, REFERENCE, Report
from studies.bench.bench_scene import make_scene
from studies.bench.timing import device_limits


@own_first
@dataclass
class BenchFitConfig(SetConvention):
    """Measure fitting: a whole step, and the time to reach a quality."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""
    root: Path = Path("data/example")
    """Multi-view set to fit."""
    subject: str | None = None
    """Which of its subjects; the first without it."""
    triplanes: Path | None = None
    """Triplane folder whose decoder is used, frozen; fits start from the mean of its triplanes (but
    for the subject's own). A random decoder and start without it."""
    plane_size: int | None = None
    """Texels along one side of the planes; those of the triplane folder, or 64, without it."""
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


def bench_fit(config: BenchFitConfig) -> None:
    """Measure and report; see :class:`BenchFitConfig`."""
    device = select_device(config.device)
    data = MultiViewSet(config.root, config.convention)
    name = config.subject or data.split("train")[0]
    views = data.load(name, data.split_views("train", name))
    reference = None
    if config.triplanes is not None:
        fitted = FittedSet.open(config.triplanes)
        start, decoder = fitted.mean(without=name), fitted.decoder()
        if config.plane_size is not None:
            start = resize_planes(start[None], config.plane_size)[0]
        reference = start  # as in stage 2
    else:
        shape = (config.channels, config.plane_size or 64)
        start = new_planes(name, config.seed, *shape, config.fit.init_std)
        _, decoder = make_scene(
            shape[1], config.channels, config.color_channels, config.hidden, config.seed
        )
    decoder = decoder.to(device)
    limits = device_limits(device)
    report = Report(config, device, limits, resolve("auto", start.to(device), decoder=decoder).name)

    rays = RayPool(views, device)

    def new_fit(side: str) -> SubjectFit:
        settings = config.fit
        if side == DENSE:
            settings = replace(settings, grid_every=10**9)
        with _side(side):  # which chooses the planes' layout too
            fit = SubjectFit(
                name,
                rays,
                start,
                decoder,
                settings,
                seed=config.seed,
                total=10**6,
                reference=reference,
            )
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
