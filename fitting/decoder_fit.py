"""The visits of stage 1 and what is kept between them; see :mod:`fitting.fit_decoder`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from captures.comparison import comparison_sheet
from captures.multiview import MultiViewSet
from fitting.consolidation import Consolidation, accumulate, consolidate
from fitting.decoder_config import FitDecoderConfig
from fitting.lockstep import lockstep
from fitting.subject_fit import SubjectFit, held_out_quality, new_planes
from fitting.subject_store import CURE, SubjectStore
from fitting.view_cache import ViewCache
from renderer.decoder import TriplaneDecoder
from renderer.fitted_set import FittedSet
from runtime.devices import select_device
from runtime.errors import UserError
from runtime.files import write_json
from runtime.formats.tensor_files import check_adam, check_like, on_cpu
from runtime.processes import Processes
from runtime.progress import counted, progress
from runtime.runs import RunFolder
from runtime.seeds import generator


def visiting_order(names: list[str], seed: int, turn: int) -> list[str]:
    """The subjects in the order a round visits them."""
    order = torch.randperm(len(names), generator=generator(seed, "order", turn))
    return [names[i] for i in order.tolist()]


class DecoderFit:
    """The schedule of visits and what is kept between them.

    Args:
        config: settings; ``config.output_dir`` becomes the run folder.
        data: where the pictures are.
        names: the subjects, in the order their numbers refer to.
        processes: who shares the work.
        measures: more measures of held-out views than PSNR and SSIM: name → function of pictures
            and truth [N, H, W, 3] that returns a value per view [N].

    Attributes:
        visit: visits done; all subjects visited in lockstep make one.
        within: steps of the next visit that are done, as far as they are saved.
        store: the subjects' triplanes and consolidation pairs.
        decoder: the shared decoder.
    """

    def __init__(
        self,
        config: FitDecoderConfig,
        data: MultiViewSet,
        names: list[str],
        processes: Processes | None = None,
        measures: Mapping[str, Callable[[Tensor, Tensor], Tensor]] | None = None,
    ):
        self.config, self.data, self.names = config, data, names
        self.processes = processes or Processes()
        self.measures = measures or {}
        self.device = select_device(config.device)
        self.folder = RunFolder(
            config.output_dir, config, "fit-decoder", is_main=self.processes.is_main
        )
        torch.manual_seed(config.seed)
        self.decoder = TriplaneDecoder(config.channels, config.color_channels, config.hidden)
        self.decoder.set_density(config.initial_density)
        self._restrict()
        self.decoder.to(self.device)
        self.optimizer = torch.optim.Adam(
            self.decoder.parameters(), lr=config.decoder_learning_rate, betas=(0.9, 0.99), eps=1e-15
        )
        self.visit = 0
        self.within = 0
        self.visits_per_round = -(-len(names) // config.subjects_per_step)
        self.visits = config.rounds * self.visits_per_round
        self.store = SubjectStore(
            self.folder.state / "subjects",
            names,
            self.device,
            (3, config.channels, config.plane_size, config.plane_size),
        )
        # The running pair of all subjects; only for consolidation online.
        self.running: Consolidation | None = None

    @property
    def step(self) -> int:
        """Decoder steps done at the end of the last visit."""
        return self.visit * self.config.inner_steps

    def schedule(self, visit: int) -> tuple[int, list[str]]:
        """Round and subjects of a visit: every round visits every subject, in a drawn order."""
        turn, position = divmod(visit, self.visits_per_round)
        first = position * self.config.subjects_per_step
        order = visiting_order(self.names, self.config.seed, turn)
        return turn, order[first : first + self.config.subjects_per_step]

    def run(self, after_visit: Callable[[DecoderFit], None] | None = None) -> None:
        """All remaining visits, then the triplane folder and the held-out quality.

        Args:
            after_visit: called after every visit, once its result is saved, and when resuming
                (a run may have been killed between the two).
        """
        self._resume()
        if after_visit is not None and self.visit:
            after_visit(self)
        bar = progress(
            total=self.visits * self.config.inner_steps,
            initial=self.step + self.within,
            desc="fit-decoder",
            unit="step",
            disable=not self.processes.is_main,
        )
        views = ViewCache(self.data, self.config.image_size, self.device)
        with bar:
            while self.visit < self.visits:
                self._visit(*self.schedule(self.visit), views, bar)
                if after_visit is not None:
                    after_visit(self)
        if self.processes.is_main:
            self._finish(views)

    def _restrict(self) -> None:
        if not self.config.view_dependent:
            self.decoder.remove_view_dependence()

    def _visit(self, turn: int, members: list[str], views: ViewCache, bar) -> None:
        config = self.config
        mine = self.processes.share(members)
        fits = [
            SubjectFit(
                name,
                views.train(name),
                planes,
                self.decoder,
                config.fit,
                seed=config.seed,
                visit=turn,
                total=config.inner_steps,
                scale=1 / (config.revisit_drop * turn + 1),
            )
            for name, planes in zip(mine, self._start_planes(mine), strict=True)
        ]
        online = config.consolidation == "online"
        pairs = [self.running if online else self.store.pair(name) for name in mine]
        for fit in fits if config.carry_optimizer else ():
            fit.set_moments(self.store.moments(fit.name))
        for fit in fits if self.within else ():
            state, file = self.store.visit_state(fit.name, self.within)
            fit.restore(state, file, CURE)
        total = self.visits * config.inner_steps
        for step in range(self.step + self.within, self.step + config.inner_steps):
            for group in self.optimizer.param_groups:
                group["lr"] = config.decoder_learning_rate * config.decoder_decay ** (step / total)
            loss = lockstep(
                fits,
                pairs,
                config.consolidation_weight,
                self.decoder,
                self.optimizer,
                len(members),
                self.processes,
            )
            self._restrict()
            bar.update()
            if (step + 1) % config.log_every == 0:
                mean = float(self.processes.sum_(loss)) / len(members)
                self._log(step, turn, members, mean, bar)
            done = step + 1 - self.step
            if done % config.save_every == 0 and done < config.inner_steps:
                self._pause(fits, done)
        self._commit(members, fits, self._consolidate(fits))

    def _log(self, step: int, turn: int, members: list[str], loss: float, bar) -> None:
        label = ", ".join(members[:3]) + ("" if len(members) <= 3 else ", …")
        if not math.isfinite(loss):
            raise UserError(
                f"the loss of {label} is not finite at step {step}; lower fit.learning_rate "
                "or decoder_learning_rate and start in a new output folder"
            )
        bar.set_postfix(subject=label, loss=f"{loss:.5f}", refresh=False)
        self.folder.scalars(step + 1, {"loss": loss, "round": turn})

    def _start_planes(self, names: list[str]) -> list[Tensor]:
        """The stored triplanes of ``names``, new ones for those not visited yet."""
        config, visited = self.config, set(self.store.visited)
        mean = None
        if config.init == "mean" and not visited.issuperset(names):
            mean = self.store.mean_planes()
        return [
            self.store.planes(name)
            if name in visited
            else new_planes(
                name, config.seed, config.channels, config.plane_size, config.fit.init_std, mean
            )
            for name in names
        ]

    def _consolidate(self, fits: list[SubjectFit]) -> list[Consolidation | None]:
        """Pairs to store with the subjects just visited; updates the running pair."""
        config = self.config
        if not config.consolidation_weight:
            return [None] * len(fits)
        pairs = [
            consolidate(self.decoder, (fit.loss(k, "fisher") for k in range(config.fisher_batches)))
            for fit in fits
        ]
        if config.consolidation == "identity":
            return list(pairs)
        importance = torch.zeros_like(
            torch.nn.utils.parameters_to_vector(self.decoder.parameters()).detach()
        )
        for pair in pairs:
            importance += pair.importance
        self.processes.sum_(importance)
        self.running = accumulate(self.running, importance, self.decoder, config.online_decay)
        return [None] * len(fits)

    def _commit(
        self, members: list[str], fits: list[SubjectFit], pairs: list[Consolidation | None]
    ) -> None:
        self.visit += 1
        for fit, pair in zip(fits, pairs, strict=True):
            moments = fit.moments() if self.config.carry_optimizer else None
            self.store.save(fit.name, self.visit, fit.planes.detach(), pair, moments)
        self.processes.wait()
        self.store.versions |= dict.fromkeys(members, self.visit)
        self.within = 0
        self._save()
        self.processes.wait()
        done = [fit.name for fit in fits]
        self.store.remove_others(done)
        self.store.remove_visits(done)

    def _pause(self, fits: list[SubjectFit], done: int) -> None:
        """Save in the middle of a visit, ``done`` steps into it."""
        for fit in fits:
            self.store.save_visit(fit.name, done, fit.state())
        self.processes.wait()
        self.within = done
        self._save()
        self.processes.wait()
        self.store.remove_visits((fit.name for fit in fits), done)

    def _save(self) -> None:
        running = self.running
        self.folder.save_state(
            self.visit,
            {
                "visit": self.visit,
                "within": self.within,
                "versions": self.store.versions,
                "decoder": self.decoder.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "running": None if running is None else [running.importance, running.anchor],
            },
        )

    def _resume(self) -> None:
        self.processes.wait()
        state = self.folder.load_state()
        if state is not None:
            self._check_state(state)
            self.visit, self.store.versions = state["visit"], state["versions"]
            self.within = state["within"]
            self.decoder.load_state_dict(state["decoder"])
            self.optimizer.load_state_dict(state["optimizer"])
            if state["running"] is not None:
                self.running = Consolidation(*(t.to(self.device) for t in state["running"]))
        self.folder.rewind(self.step + self.within)
        if self.processes.is_main:
            self.store.remove_others()
            self.store.remove_visits(self.names, self.within)
        self.processes.wait()

    def _check_state(self, state: dict[str, Any]) -> None:
        """Refuse a damaged state, or one of other subjects."""
        file, cure = self.folder.state_file, CURE
        like = {"visit": 0, "within": 0, "versions": {}, "decoder": self.decoder.state_dict()}
        check_like(state, on_cpu(like) | {"optimizer": {}, "running": None}, file, cure)
        check_adam(state["optimizer"], self.optimizer, file, cure)
        if state["running"] is not None:
            count = sum(parameter.numel() for parameter in self.decoder.parameters())
            check_like(state["running"], [torch.zeros(count)] * 2, file, cure, "running")
        versions = state["versions"]
        if set(versions) != set(self.names):
            raise UserError(
                f"{self.folder.path} was started with other subjects; choose a new output folder"
            )
        check_like(versions, dict.fromkeys(self.names, 0), file, cure, "versions")

    def _finish(self, views: ViewCache) -> None:
        config = self.config
        self.decoder.eval()
        fitted = FittedSet.create(
            self.folder.path,
            self.decoder,
            (3, config.channels, config.plane_size, config.plane_size),
            identities=self.data.identity_splits,
        )
        quality = {}
        for name in progress(self.names, desc="held-out views", unit="subject"):
            fitted.put(name, self.store.planes(name))
            held_out = views.test(name)
            if held_out is None:
                continue
            result = held_out_quality(
                fitted.load(name).to(self.device),
                self.decoder,
                held_out,
                config.fit.render_settings(),
            )
            quality[name] = {"psnr": result.mean_psnr, "ssim": result.mean_ssim}
            truth = held_out.composited(1.0)
            for measure, function in self.measures.items():
                quality[name][measure] = float(function(result.images, truth).mean())
            self.folder.save_image(f"{name}.png", comparison_sheet(held_out, result.images))
        report_quality(self.folder, quality)


def report_quality(folder: RunFolder, quality: dict[str, dict[str, float]]) -> None:
    """Write ``quality.json`` (per subject and mean over held-out views) and log the mean."""
    if not quality:
        folder.log("no held-out views in this set: no quality figures")
        return
    mean = {
        key: sum(entry[key] for entry in quality.values()) / len(quality)
        for key in ("psnr", "ssim", "lpips")
        if all(key in entry for entry in quality.values())
    }
    write_json(folder.path / "quality.json", {"mean": mean, "subjects": quality})
    figures = ", ".join(f"{key} {value:.2f}" for key, value in mean.items())
    folder.log(f"held-out views, {counted(len(quality), 'subject')}: {figures}")
