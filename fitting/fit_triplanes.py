"""Stage 2: one triplane per subject under the frozen decoder.

Reads a multi-view set and a stage-1 run; writes a triplane folder with a quality record per
subject. Finished subjects are skipped, a killed one goes on from its last save. Any number of
processes share the subjects (:mod:`fitting.fit_jobs`): those of ``torchrun``, ``srun`` or
``--subjects_at_once``, or the same command given on several machines that see the folder.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from captures.comparison import comparison_sheet, save_sheet
from captures.multiview import MultiViewSet, select_names
from fitting.decoder_fit import report_quality
from fitting.fit_jobs import JobBar, SubjectJobs
from fitting.fit_workers import Share, supervise
from fitting.ray_pool import RayPool
from fitting.subject_fit import (
    FitSettings,
    SubjectFit,
    held_out_quality,
    new_planes,
)
from renderer.fitted_set import FittedSet
from renderer.triplane import resize_planes
from runtime.claims import Claim
from runtime.devices import select_device
from runtime.errors import UserError
from runtime.files import atomic_path, load_state, write_json
from runtime.launch import place_in_job
from runtime.runs import RunFolder

CURVE_POINTS = 20
"""Points of the loss curve in a subject's record."""


@dataclass
class FitTriplanesConfig:
    """Fit one triplane per subject under the frozen decoder (stage 2)."""

    root: Path
    """Multi-view set to read."""
    decoder: Path
    """Stage-1 run folder whose decoder is used, frozen."""
    output_dir: Path
    """Run folder to write; the same command resumes it."""
    convention: str | None = None
    """Camera convention of a set without dataset.json, e.g. rodinhd."""
    identities: Literal["all", "train", "validation", "test"] = "all"
    """Which identities to fit. Held-out ones are fitted too: evaluation needs them."""
    txt_file: Path | None = None
    """Text file with one subject per line; replaces the identities."""
    start_idx: int = 0
    """First subject of the list to fit."""
    end_idx: int | None = None
    """Subject of the list to stop before; the list's end without it."""
    image_size: int | None = None
    """Resize pictures to this many pixels; their own size without it."""
    init: Literal["mean", "stage1", "random"] = "mean"
    """Start from the mean of the stage-1 triplanes, from the subject's own where there is one
    (else the mean), or from noise. Except from noise, the plane regularisers (fit.tv_weight and
    the like) hold the difference from the mean small and smooth, not the planes themselves."""
    iterations: int = 30000
    """Steps per subject."""
    plane_size: int | None = None
    """Texels along one side of a plane; those of stage 1 without it. A decoder fits planes of any
    size, and learns in less time on small ones."""
    coarse_size: int | None = None
    """Texels along one side of the planes that a fit begins with, fewer than it ends with: a coarse
    texel is seen by more rays. Full size from the start without it."""
    coarse_steps: int = 0
    """Steps with such planes; they are enlarged then."""
    fit: FitSettings = field(default_factory=FitSettings)
    """Settings shared with stage 1."""
    storage: Literal["float16", "uint8"] = "float16"
    """How triplanes are kept on disk; uint8 takes half the room, 8 bits a value with a scale for
    each channel. Quality is judged on what is kept."""
    seed: int = 0
    """Fixes every random number."""
    device: str = field(default="auto", metadata={"resumable": True})
    """auto, cpu, cuda or cuda:1."""
    save_every: int = field(default=2000, metadata={"resumable": True})
    """Steps between saves of an unfinished subject."""
    log_every: int = field(default=100, metadata={"resumable": True})
    """Steps between looks at the loss, which must be finite."""
    subjects_at_once: int = field(default=1, metadata={"resumable": True})
    """Subjects fitted at once on the device, each by a process of its own that gets its share of
    the CPU's cores."""
    stale_after: float = field(default=300.0, metadata={"resumable": True})
    """Seconds without a sign of life after which a process on another machine counts as dead and
    its subject is taken over; on the same machine that is known at once."""


def fit_triplanes(config: FitTriplanesConfig) -> None:
    """Run or resume stage 2.

    Raises:
        UserError: on inputs that no subject can be fitted with.
        PartialFailure: some subjects could not be fitted; the rest are done.
    """
    if config.subjects_at_once < 1:
        raise UserError(f"subjects_at_once is {config.subjects_at_once}; use 1 or more")
    if config.plane_size is not None and config.plane_size < 2:
        raise UserError(f"plane_size is {config.plane_size}; use 2 or more")
    if (config.coarse_size is None) != (config.coarse_steps == 0):
        raise UserError("coarse_size and coarse_steps belong together: set both or neither")
    if (config.coarse_size or 2) < 2 or not 0 <= config.coarse_steps < config.iterations:
        raise UserError(
            f"coarse_size must be 2 or more and coarse_steps fewer than the {config.iterations} "
            f"iterations; got {config.coarse_size} and {config.coarse_steps}"
        )
    rank, count = place_in_job()
    share = Share(rank, count, config.subjects_at_once)
    if config.subjects_at_once == 1:
        _work(config, share)
        return
    stage = _Stage2(config, is_main=rank == 0)
    supervise(_work, config, share, stage.jobs)
    stage.finish()


def _work(config: FitTriplanesConfig, share: Share) -> None:
    """Fit subjects until none is left; then, unless a supervisor does, report."""
    stage = _Stage2(config, is_main=share.is_main)
    if share.threads is not None:
        torch.set_num_threads(share.threads)
    stage.jobs.run(stage.fit, share.first, share.shows)
    if share.reports:
        stage.finish()


class _Stage2:
    """What all subjects of a run have in common, and the fitting of one."""

    def __init__(self, config: FitTriplanesConfig, is_main: bool):
        self.config = config
        self.data = MultiViewSet(config.root, config.convention)
        names = select_names(
            self.data.split(config.identities),
            config.txt_file,
            config.start_idx,
            config.end_idx,
            self.data.names,
        )
        self.stage1 = FittedSet.open(config.decoder)
        self.folder = RunFolder(
            config.output_dir, config, "fit-triplanes", is_main=is_main, shared=True
        )
        self.device = select_device(config.device, shared=True)
        self.decoder = self.stage1.decoder()
        torch.nn.Module.to(self.decoder, self.device)
        planes, channels, size, _ = self.stage1.shape
        self.size = config.plane_size or size
        self.mean = None if config.init == "random" else _resized(self.stage1.mean(), self.size)
        self.fitted = FittedSet.create(
            config.output_dir,
            self.decoder,
            (planes, channels, self.size, self.size),
            config.storage,
        )
        self.jobs = SubjectJobs(self.folder, self.fitted, names, config.stale_after)

    def finish(self) -> None:
        """Report what is done and raise what failed."""
        quality = self.jobs.finish()
        report_quality(self.folder, {k: v for k, v in quality.items() if "psnr" in v})
        self.jobs.raise_failures()

    def fit(self, name: str, claim: Claim, bar: JobBar) -> bool:
        """Fit one subject and write its record; false when another process has taken over."""
        config, clock = self.config, _Clock()
        views = self.data.load(name, self.data.split_views("train", name), config.image_size)
        state = self._saved(name)
        at = 0 if state is None else state["step"]
        size = self.size
        if config.coarse_size is not None and at <= config.coarse_steps:
            size = config.coarse_size
        fit = SubjectFit(
            name,
            RayPool(views, self.device),
            _resized(self._start(name), size),
            self.decoder,
            config.fit,
            seed=config.seed,
            total=config.iterations,
            reference=None if self.mean is None else _resized(self.mean, size),
        )
        if state is not None:
            fit.restore(state)
        curve: list[float] = [] if state is None else state["curve"]
        first = fit.step_index
        clock.lap("load")
        while fit.step_index < config.iterations:
            if config.coarse_steps and fit.step_index == config.coarse_steps:
                fit.resize(self.size, self.mean)
            loss = fit.step()
            step = fit.step_index
            if step % config.log_every == 0:
                if not torch.isfinite(loss):
                    raise UserError(
                        f"the loss of {name} is not finite at step {step}; lower "
                        "fit.learning_rate and start in a new output folder"
                    )
                bar.within(step / config.iterations)
            if step * CURVE_POINTS // config.iterations > len(curve):
                curve.append(float(loss))
            if step % config.save_every == 0 and step < config.iterations:
                if not claim.held():
                    return False
                with atomic_path(self.jobs.state(name)) as temporary:
                    torch.save(fit.state() | {"curve": curve}, temporary)
        rate = (fit.step_index - first) / clock.lap("fit")
        if not claim.held():
            return False
        self.fitted.put(name, fit.planes)
        clock.lap("save")
        record: dict = {"steps": fit.step_index, "steps_per_second": round(rate, 2)}
        record |= {"loss": curve} | self._check(name)
        clock.lap("check")
        write_json(self.jobs.record(name), record | {"seconds": clock.laps})
        self.jobs.state(name).unlink(missing_ok=True)
        if self.folder.is_main:
            shown = {key: record[key] for key in ("psnr", "ssim") if key in record}
            self.folder.scalars(len(self.jobs.done()), {"loss": curve[-1], **shown})
        return True

    def _start(self, name: str) -> torch.Tensor:
        config = self.config
        if config.init == "stage1" and self.stage1.path(name).exists():
            return _resized(self.stage1.load(name), self.size)
        std = config.fit.init_std if config.init == "random" else 0.0
        return new_planes(name, config.seed, self.stage1.shape[1], self.size, std, self.mean)

    def _saved(self, name: str) -> dict | None:
        """The saved state of an unfinished fit, if there is one."""
        file = self.jobs.state(name)
        if not file.exists():
            return None
        return load_state(file, f"delete it to fit {name} from the start")

    def _check(self, name: str) -> dict[str, float]:
        """Held-out quality of what is on disk, rounded and clamped, not of what was in memory."""
        frames = self.data.split_views("test", name)
        if not frames:
            return {}
        held_out = self.data.load(name, frames, self.config.image_size)
        planes = self.fitted.load(name).to(self.device)
        settings = self.config.fit.render_settings()
        result = held_out_quality(planes, self.decoder, held_out, settings)
        sheet = comparison_sheet(held_out, result.images)
        save_sheet(self.folder.images / f"{name}.png", sheet)
        return {"psnr": result.mean_psnr, "ssim": result.mean_ssim}


class _Clock:
    """Seconds between laps, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> float:
        """End a lap; its seconds."""
        now = time.perf_counter()
        seconds, self._since = max(now - self._since, 1e-9), now
        self.laps[name] = round(seconds, 3)
        return seconds


def _resized(planes: torch.Tensor, size: int) -> torch.Tensor:
    """Planes [3, C, H, H] at another size."""
    return planes if planes.shape[-1] == size else resize_planes(planes[None], size)[0]
