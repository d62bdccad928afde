"""Stage 2: what all subjects have in common, and the fitting of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from captures.comparison import comparison_sheet, save_sheet
from captures.multiview import MultiViewSet
from fitting.ray_pool import RayPool
from fitting.subject_fit import SubjectFit, held_out_quality, new_planes
from fitting.triplane_config import FitTriplanesConfig
from renderer.fitted_set import FittedSet
from renderer.triplane import resize_planes
from runtime.described import Described, read_described
from runtime.devices import select_device
from runtime.errors import UserError
from runtime.files import atomic_path, write_json
from runtime.formats.tensor_files import check_like, load_state
from runtime.progress import Stopwatch
from runtime.spread import Turns

CURVE_POINTS = 20
"""Points of the loss curve in a subject's record."""


@dataclass(frozen=True)
class FitFiles:
    """The places in a run of what belongs to a subject.

    Attributes:
        run: the run folder.
    """

    run: Path

    def triplane(self, name: str) -> Path:
        """The fitted triplane."""
        return self.run / "triplanes" / f"{name}.safetensors"

    def record(self, name: str) -> Path:
        """The quality record, written last."""
        return self.run / "quality" / f"{name}.json"

    def state(self, name: str) -> Path:
        """Return where an unfinished subject's state is saved."""
        return self.run / "state" / f"{name}.pt"

    def picture(self, name: str) -> Path:
        """Held-out views beside their truth."""
        return self.run / "images" / f"{name}.png"

    def finished(self, name: str) -> bool:
        """Return whether there is nothing left to do."""
        return self.record(name).exists() and self.triplane(name).exists()


class FitRecord(Described):
    """``quality/<subject>.json``; the measures are there where the subject has held-out views."""

    loss: Annotated[list[float], Field(min_length=1)]
    psnr: float | None = None
    ssim: float | None = None
    lpips: float | None = None


def read_record(path: Path) -> dict[str, Any]:
    """Return a subject's quality record, without what was not measured."""
    return read_described(FitRecord, path).model_dump(exclude_none=True)


class TriplaneFit:
    """Fits one subject after the other to a frozen decoder.

    Args:
        config: settings; the run folder and its triplane folder are made already.

    Raises:
        UserError: set, decoder or device can't be used.
    """

    def __init__(self, config: FitTriplanesConfig):
        self.config = config
        self.files = FitFiles(config.output_dir)
        self.data = MultiViewSet(config.root, config.convention)
        self.stage1 = FittedSet.open(config.decoder)
        self.fitted = FittedSet.open(config.output_dir)
        self.device = select_device(config.device)
        self.decoder = self.fitted.decoder()
        torch.nn.Module.to(self.decoder, self.device)
        self.size = self.fitted.shape[-1]
        self.mean = None if config.init == "random" else _resized(self.stage1.mean(), self.size)

    def __call__(self, names: list[str], turns: Turns) -> None:
        """Fit subjects and write their records."""
        for name in names:
            self._fit(name, turns)

    def _fit(self, name: str, turns: Turns) -> None:
        config, clock = self.config, Stopwatch()
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
            fit.restore(state, self.files.state(name), _cure(name))
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
                turns.within(step / config.iterations)
            if step * CURVE_POINTS // config.iterations > len(curve):
                curve.append(float(loss))
            if step % config.save_every == 0 and step < config.iterations:
                with atomic_path(self.files.state(name)) as temporary:
                    torch.save(fit.state() | {"curve": curve}, temporary)
                turns.saved()
        rate = (fit.step_index - first) / clock.lap("fit")
        self.fitted.put(name, fit.planes)
        clock.lap("save")
        record: dict = {"steps": fit.step_index, "steps_per_second": round(rate, 2)}
        record |= {"loss": curve} | self._check(name)
        clock.lap("check")
        write_json(self.files.record(name), record | {"seconds": clock.laps})
        self.files.state(name).unlink(missing_ok=True)

    def _start(self, name: str) -> torch.Tensor:
        config = self.config
        if config.init == "stage1" and self.stage1.path(name).exists():
            return _resized(self.stage1.load(name), self.size)
        std = config.fit.init_std if config.init == "random" else 0.0
        return new_planes(name, config.seed, self.stage1.shape[1], self.size, std, self.mean)

    def _saved(self, name: str) -> dict | None:
        """The saved state of an unfinished fit, if there is one."""
        file = self.files.state(name)
        if not file.exists():
            return None
        state = load_state(file, _cure(name))
        check_like(state, {"step": 0, "curve": None}, file, _cure(name))
        check_like(state["curve"], [0.0] * len(state["curve"]), file, _cure(name), "curve")
        return state

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
        save_sheet(self.files.picture(name), sheet)
        return {"psnr": result.mean_psnr, "ssim": result.mean_ssim}


def _cure(name: str) -> str:
    return f"delete it to fit {name} from the start"


def _resized(planes: torch.Tensor, size: int) -> torch.Tensor:
    """Planes [3, C, H, H] at another size."""
    return planes if planes.shape[-1] == size else resize_planes(planes[None], size)[0]
