"""``triavatar study forgetting``: does a shared decoder forget, and what cures it?

Fits the same subjects in several ways with the same number of rays, and measures every identity
after every visit:

- naive: one long visit to each subject, one after the other;
- replay: many short visits in rounds;
- consolidation: replay, and identity-aware weight consolidation (RodinHD, Algorithm 1);
- online: replay, and one running consolidation pair for all identities; with ``rounds: 1``, one
  long visit each under it, without replay;
- carry: replay, going on with every triplane's Adam moments (not run by default);
- joint: mini-batches of subjects, every step taking rays of several: no decoder can forget what
  is always before its eyes, so this is the baseline to beat;
- together: all subjects in every step, going on with their Adam moments (not run by default).

The budget counts every ray with a gradient: consolidation's Fisher batches too, for which its
visits are that many steps shorter. It does not count the measurements. Those take every k-th pixel
of the first ``eval_views`` held-out views, about ``eval_size``² of them a view: the same rays each
time, compared with the pictures' own pixels (not with smaller pictures, whose averaged pixels no
ray sees), and SSIM on the picture they make. After the last visit all held-out views are measured
at full size; the table's first columns are these.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from captures.multiview import MultiViewSet, Views
from fitting.decoder_config import FitDecoderConfig
from fitting.decoder_fit import DecoderFit
from renderer.metrics import Lpips, psnr, ssim
from renderer.render import RenderSettings, build_occupancy, render_rays
from runtime.config import check_settings, own_first, setting
from runtime.devices import select_device
from runtime.errors import UserError
from runtime.launch import is_main_process
from runtime.runs import RunFolder
from runtime.spread import Job, SpreadSettings, Turns, spread
from studies.charts import require_matplotlib
from studies.forgetting_report import read_run, write_report

Method = Literal["naive", "replay", "consolidation", "online", "carry", "joint", "together"]
DEFAULT_METHODS: tuple[Method, ...] = ("naive", "replay", "consolidation", "online", "joint")
Measure = Callable[[Tensor, Tensor], Tensor]


@own_first
@dataclass(kw_only=True)
class StudyForgettingConfig(SpreadSettings, FitDecoderConfig):
    """Fit the same subjects naively, with replay, with consolidation and jointly; compare."""

    methods: list[Method] = field(
        default_factory=lambda: list(DEFAULT_METHODS),
        metadata={"resumable": True},
    )
    """Ways of fitting to compare: some of naive, replay, consolidation, online, carry, joint and
    together."""
    n_seeds: int = setting(3, resumable=True, at_least=1, at_most=1000)
    """How often each is run, with the seeds seed, seed + 1, …; the table shows the spread."""
    # The folders of finished joint runs refuse other settings of joint; the rest need not.
    joint_subjects: int = setting(4, resumable=True, at_least=2)
    """Subjects in a mini-batch of the method joint."""
    joint_split_rays: bool = setting(False, resumable=True)
    """Whether joint divides fit.rays among the subjects of a step and takes as many more steps,
    or takes fit.rays of each and fewer steps. The total of rays is the same."""
    eval_views: int = setting(2, at_least=1, at_most=1000)
    """Held-out views of each identity measured after every visit."""
    eval_size: int = setting(48, at_least=11, at_most=4096)
    """Pixels measured along each side of such a view, at least 11."""
    eval_grid: int = setting(32, at_least=1, at_most=512)
    """Cells along one side of the occupancy grid made for that."""
    eval_every: int = setting(1, at_least=1)
    """Measure after every n-th visit of replay; other methods at the same ray budgets."""
    lpips: Literal["off", "alex", "vgg"] = "off"
    """Measure LPIPS too, with this network; its weights must be there."""

    def check(self) -> None:
        """Refuse settings that contradict each other, and charts that can't be drawn.

        Raises:
            UserError: names them.
        """
        super().check()
        require_matplotlib()
        if not self.methods:
            raise UserError(f"methods must be some of {', '.join(get_args(Method))}")
        if self.subjects_per_step != 1:
            raise UserError("the methods set subjects_per_step; use --joint_subjects for joint")
        consolidates = {"consolidation", "online"} & set(self.methods)
        if consolidates and self.fisher_batches >= self.inner_steps:
            raise UserError(
                f"fisher_batches ({self.fisher_batches}) count in the ray budget of a visit and "
                f"must be fewer than its inner_steps ({self.inner_steps})"
            )
        if consolidates and not self.consolidation_weight:
            raise UserError("consolidation_weight is 0, so consolidation would be replay again")

    @property
    def runs(self) -> dict[str, tuple[Method, int]]:
        """Method and seed of every run by its name."""
        seeds = range(self.seed, self.seed + self.n_seeds)
        return {f"{method}-{seed}": (method, seed) for seed in seeds for method in self.methods}

    def folder_of(self, method: Method, seed: int) -> Path:
        """The run folder of a run."""
        return self.output_dir / method / f"seed_{seed}"

    def finished(self, name: str) -> bool:
        """Return whether a run is done."""
        return read_run(self.folder_of(*self.runs[name])) is not None


class MethodRuns:
    """The study's runs, begun in a process; they are fitted one after the other.

    Raises:
        UserError: the set, the device or LPIPS can't be used.
    """

    def __init__(self, config: StudyForgettingConfig):
        self.config = config
        self.data = MultiViewSet(config.root, config.convention)
        self.names = config.chosen(self.data.split("train"), self.data.names)
        self.device = select_device(config.device)
        self.measures: dict[str, Measure] = {}
        if config.lpips != "off":
            self.measures["lpips"] = Lpips(config.lpips, self.device)

    def __call__(self, names: list[str], turns: Turns) -> None:
        """Fit runs, or go on with them."""
        for name in names:
            method, seed = self.config.runs[name]
            run = run_config(self.config, method, seed, len(self.names))
            fit = DecoderFit(run, self.data, self.names, measures=self.measures)
            measures = {"psnr": psnr, "ssim": ssim, **self.measures}
            fit.run(Watcher(run, self.config, self.data, measures))


def study_forgetting(config: StudyForgettingConfig) -> None:
    """Run or resume the study.

    Raises:
        UserError: the set or the settings can't be studied.
        PartialFailure: some runs failed; the rest are done.
    """
    check_settings(config)
    runs = MethodRuns(config)
    _check_subjects(config, runs.data, runs.names)
    folder = RunFolder(config.output_dir, config, "study-forgetting", is_main=is_main_process())
    job = Job(
        "study-forgetting",
        MethodRuns,
        config,
        config.finished,
        folder.state / "turns",
        uses_gpu=config.device != "cpu",
        unit="run",
    )

    def report(*_: object) -> None:
        """Draw what is there, so that it can be looked at before all is done."""
        seeds = range(config.seed, config.seed + config.n_seeds)
        write_report(folder.path, config.methods, seeds, runs.device)

    found = spread(job, list(config.runs), config, report, runs)
    report()
    folder.log(f"report: {folder.path / 'table.md'}, maps.png, curves.png")
    found.raise_failures()


def run_config(
    config: StudyForgettingConfig, method: Method, seed: int, subjects: int
) -> FitDecoderConfig:
    """Stage-1 settings of one run; every method spends the same rays with gradients."""
    shared = {f.name: getattr(config, f.name) for f in dataclasses.fields(FitDecoderConfig)}
    base = FitDecoderConfig(**shared)
    base = replace(
        base,
        seed=seed,
        output_dir=config.folder_of(method, seed),
        consolidation_weight=0.0,
        subjects_per_step=1,
    )
    if method == "naive":
        return replace(base, rounds=1, inner_steps=config.rounds * config.inner_steps)
    if method == "joint":
        together = min(config.joint_subjects, subjects)
        base = replace(base, subjects_per_step=together)
        if config.joint_split_rays:
            fit = replace(config.fit, rays=config.fit.rays // together)
            base = replace(base, inner_steps=config.inner_steps * together, fit=fit)
        return base
    if method == "together":
        return replace(base, subjects_per_step=subjects, carry_optimizer=True)
    if method in ("replay", "carry"):
        return replace(base, carry_optimizer=config.carry_optimizer or method == "carry")
    return replace(
        base,
        inner_steps=config.inner_steps - config.fisher_batches,
        consolidation_weight=config.consolidation_weight,
        consolidation="online" if method == "online" else "identity",
    )


def rays_per_visit(config: FitDecoderConfig) -> int:
    """Rays with gradients that one subject's visit takes, its Fisher batches among them."""
    fisher = config.fisher_batches if config.consolidation_weight else 0
    return (config.inner_steps + fisher) * config.fit.rays


def _check_subjects(config: StudyForgettingConfig, data: MultiViewSet, names: list[str]) -> None:
    if len(names) < 2:
        raise UserError("a study of forgetting needs two subjects or more")
    together = min(config.joint_subjects, len(names))
    if "joint" in config.methods and config.joint_split_rays and config.fit.rays % together:
        raise UserError(f"fit.rays ({config.fit.rays}) can't be divided among {together} subjects")
    for name in names:
        if not data.split_views("test", name):
            raise UserError(f"{name} has no held-out views to measure; render the set with some")


class Watcher:
    """Called after every visit: measures every identity visited so far.

    Rows of ``stats.jsonl``: ``psnr/NAME`` and the like, ``visits/NAME`` so far, ``rays`` spent so
    far and ``seconds`` of fitting since the row before.
    """

    def __init__(
        self,
        run: FitDecoderConfig,
        config: StudyForgettingConfig,
        data: MultiViewSet,
        measures: dict[str, Measure],
    ):
        self.run, self.config, self.data, self.measures = run, config, data, measures
        # In visits of replay, which every method's rays are counted in.
        self.unit = config.inner_steps * config.fit.rays
        self._rays: dict[str, HeldOutRays] = {}
        self._since = time.perf_counter()
        self._resuming = True

    def __call__(self, fit: DecoderFit) -> None:
        rays, before = self._spent(fit, fit.visit), self._spent(fit, fit.visit - 1)
        every = self.config.eval_every * self.unit
        due = rays // every > before // every or fit.visit == fit.visits
        if not due or (self._resuming and self._measured(fit)):
            return
        self._resuming = False
        row = {"rays": float(rays), "seconds": time.perf_counter() - self._since}
        settings = replace(self.run.fit.render_settings(), grid=self.config.eval_grid)
        for name in fit.store.visited:
            if name not in self._rays:
                self._rays[name] = self._held_out(name, fit.device)
            held_out = self._rays[name]
            image = held_out.render(fit.store.planes(name).to(fit.device), fit.decoder, settings)
            row[f"visits/{name}"] = 1 + (fit.store.versions[name] - 1) // fit.visits_per_round
            for measure, function in self.measures.items():
                row[f"{measure}/{name}"] = float(function(image, held_out.truth).mean())
        fit.folder.scalars(fit.step, row)
        self._since = time.perf_counter()

    def _spent(self, fit: DecoderFit, visits: int) -> int:
        turns, groups = divmod(visits, fit.visits_per_round)
        subjects = turns * len(fit.names) + min(groups * self.run.subjects_per_step, len(fit.names))
        return subjects * rays_per_visit(self.run)

    def _measured(self, fit: DecoderFit) -> bool:
        """Return whether a run killed after its last measurement left it in ``stats.jsonl``."""
        return any(r["step"] == fit.step and "rays" in r for r in fit.folder.read_scalars())

    def _held_out(self, name: str, device: torch.device) -> HeldOutRays:
        frames = self.data.split_views("test", name)
        # Spread over the held-out views: neighbours show much the same.
        count = min(self.config.eval_views, len(frames))
        chosen = [frames[i * len(frames) // count] for i in range(count)]
        views = self.data.load(name, chosen, self.run.image_size)
        return HeldOutRays(views, self.config.eval_size, device)


class HeldOutRays:
    """A fixed lattice of pixels of some views: their rays and true colours.

    Args:
        views: N pictures and cameras.
        size: pixels along each side, S; as many as the picture has where it is smaller. The
            lattice's step is a whole number of pixels, so S may come out up to twice that.

    Attributes:
        origins, directions: [N·S·S, 3].
        truth: on white, [N, S, S, 3].
    """

    def __init__(self, views: Views, size: int, device: torch.device | str = "cpu"):
        truth = views.composited(1.0)
        height, width = truth.shape[1:3]
        stride = max(1, min(height, width) // size)
        y = torch.arange(stride // 2, height, stride)
        x = torch.arange(stride // 2, width, stride)
        self.truth = truth[:, y][:, :, x].to(device)
        view, row, column = (
            index.flatten().to(device)
            for index in torch.meshgrid(torch.arange(len(truth)), y, x, indexing="ij")
        )
        cameras = views.cameras.to(device)
        self.origins, self.directions = cameras.rays(view, column + 0.5, row + 0.5)

    @torch.no_grad()
    def render(self, planes: Tensor, decoder, settings: RenderSettings) -> Tensor:
        """Return what a triplane [3, C, H, W] shows there, [N, S, S, 3]."""
        grid = build_occupancy(planes, decoder, settings)
        rendered = render_rays(planes, decoder, grid, self.origins, self.directions, 1.0, settings)
        return rendered.color.view(self.truth.shape)
