"""Stage 2: one triplane per subject under the frozen decoder.

Reads a multi-view set and a stage-1 run; writes a triplane folder with a quality record per
subject. Finished subjects are skipped, a killed one goes on from its last save. Several
processes (``torchrun``, ``accelerate launch``) share the subjects between them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from renderer.decoder import TriplaneDecoder
from renderer.fit_decoder import report_quality
from renderer.fitted_set import FittedSet
from renderer.fitting import FitSettings, SubjectFit, held_out_quality, new_planes
from renderer.multiview import MultiViewSet, select_names
from renderer.ray_pool import RayPool
from renderer.sheet import comparison_sheet
from runtime.devices import select_device
from runtime.errors import UserError
from runtime.files import atomic_path, read_json, write_json
from runtime.launch import process_count, process_index
from runtime.progress import progress
from runtime.runs import RunFolder


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
    fit: FitSettings = field(default_factory=FitSettings)
    """Settings shared with stage 1."""
    seed: int = 0
    """Fixes every random number."""
    device: str = field(default="auto", metadata={"resumable": True})
    """auto, cpu, cuda or cuda:1."""
    save_every: int = field(default=2000, metadata={"resumable": True})
    """Steps between saves of an unfinished subject."""
    log_every: int = field(default=100, metadata={"resumable": True})
    """Steps between lines of stats.jsonl."""


def fit_triplanes(config: FitTriplanesConfig) -> None:
    """Run or resume stage 2."""
    data = MultiViewSet(config.root, config.convention)
    names = select_names(
        data.split(config.identities), config.txt_file, config.start_idx, config.end_idx, data.names
    )
    rank, world = process_index(), process_count()
    stage1 = FittedSet.open(config.decoder)
    folder = RunFolder(config.output_dir, config, "fit-triplanes", is_main=rank == 0)
    device = select_device(config.device)
    decoder = stage1.decoder().to(device)
    mean = _mean_planes(stage1) if config.init != "random" else None
    fitted = FittedSet.create(config.output_dir, decoder, stage1.shape)
    done = {name for name in fitted.names if _quality_file(folder, name).exists()}
    mine = names[rank::world]
    bar = progress(
        total=len(mine) * config.iterations,
        initial=sum(name in done for name in mine) * config.iterations,
        desc="fit-triplanes",
        unit="step",
        disable=rank != 0,
    )
    with bar:
        for index, name in enumerate(mine):
            if name not in done:
                planes = _start(config, stage1, name, mean)
                first_step = index * config.iterations
                _fit_subject(
                    config, data, name, planes, mean, decoder, fitted, folder, bar, first_step
                )
    if rank == 0:
        records = {name: _quality_file(folder, name) for name in names}
        quality = {name: read_json(path) for name, path in records.items() if path.exists()}
        report_quality(folder, {k: v for k, v in quality.items() if "psnr" in v})


def _mean_planes(stage1: FittedSet) -> torch.Tensor:
    if not stage1.names:
        raise UserError(f"{stage1.folder} holds no triplanes to start from; use --init random")
    total = torch.zeros(stage1.shape)
    for name in stage1.names:
        total += stage1.load(name)
    return total / len(stage1.names)


def _start(
    config: FitTriplanesConfig, stage1: FittedSet, name: str, mean: torch.Tensor | None
) -> torch.Tensor:
    if config.init == "stage1" and stage1.path(name).exists():
        return stage1.load(name)
    _, channels, size, _ = stage1.shape
    std = config.fit.init_std if config.init == "random" else 0.0
    return new_planes(name, config.seed, channels, size, std, mean)


def _quality_file(folder: RunFolder, name: str) -> Path:
    return folder.path / "quality" / f"{name}.json"


def _fit_subject(
    config: FitTriplanesConfig,
    data: MultiViewSet,
    name: str,
    planes: torch.Tensor,
    mean: torch.Tensor | None,
    decoder: TriplaneDecoder,
    fitted: FittedSet,
    folder: RunFolder,
    bar,
    first_step: int,
) -> None:
    views = data.load(name, data.split_views("train", name), config.image_size)
    rays = RayPool(views, next(decoder.parameters()).device)
    fit = SubjectFit(
        name,
        rays,
        planes,
        decoder,
        config.fit,
        seed=config.seed,
        total=config.iterations,
        reference=mean,
    )
    state_file = folder.state / f"{name}.pt"
    if state_file.exists():
        fit.restore(torch.load(state_file, map_location="cpu", weights_only=True))
        bar.update(fit.step_index)
    folder.rewind(first_step + fit.step_index)
    began, first = time.perf_counter(), fit.step_index
    while fit.step_index < config.iterations:
        loss = fit.step()
        bar.update()
        if fit.step_index % config.log_every == 0:
            if not torch.isfinite(loss):
                raise UserError(
                    f"the loss of {name} is not finite at step {fit.step_index}; lower "
                    "fit.learning_rate and start in a new output folder"
                )
            bar.set_postfix(subject=name, loss=f"{float(loss):.5f}", refresh=False)
            folder.scalars(first_step + fit.step_index, {f"{name}/loss": float(loss)})
        if fit.step_index % config.save_every == 0 and fit.step_index < config.iterations:
            with atomic_path(state_file) as temporary:
                torch.save(fit.state(), temporary)
    rate = (fit.step_index - first) / max(time.perf_counter() - began, 1e-9)
    fitted.put(name, fit.planes)
    record: dict[str, float] = {"steps": fit.step_index, "steps_per_second": round(rate, 2)}
    frames = data.split_views("test", name)
    if frames:
        held_out = data.load(name, frames, config.image_size)
        # Judge what is on disk, fp16 and clamped, not what was in memory.
        result = held_out_quality(
            fitted.load(name).to(fit.planes.device),
            decoder,
            held_out,
            config.fit.render_settings(),
        )
        record |= {"psnr": result.mean_psnr, "ssim": result.mean_ssim}
        folder.save_image(f"{name}.png", comparison_sheet(held_out, result.images))
    write_json(_quality_file(folder, name), record)
    state_file.unlink(missing_ok=True)
