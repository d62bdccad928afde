"""Stage 1: fit the shared decoder on some subjects, with task replay and weight consolidation.

RodinHD, Algorithm 1: rounds of short visits. A visit loads one subject's triplane, fits triplane
and decoder together for a few steps, then stores the triplane and the subject's consolidation
pair. Reads a multi-view set; writes a triplane folder (:mod:`renderer.fitted_set`) whose decoder
stage 2 freezes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from renderer.consolidation import Consolidation, consolidate
from renderer.decoder import TriplaneDecoder
from renderer.fitted_set import FittedSet
from renderer.fitting import FitSettings, SubjectFit, held_out_quality, new_planes
from renderer.multiview import MultiViewSet, Views, select_names
from renderer.ray_pool import RayPool
from renderer.sheet import comparison_sheet
from runtime.devices import select_device
from runtime.errors import UserError
from runtime.files import load_tensors, save_tensors, write_json
from runtime.launch import process_count
from runtime.progress import progress
from runtime.runs import RunFolder
from runtime.seeds import generator


@dataclass
class FitDecoderConfig:
    """Fit the shared decoder (stage 1)."""

    root: Path
    """Multi-view set to read."""
    output_dir: Path
    """Run folder to write; the same command resumes it."""
    convention: str | None = None
    """Camera convention of a set without dataset.json, e.g. rodinhd."""
    txt_file: Path | None = None
    """Text file with one subject per line; without it the set's training identities."""
    start_idx: int = 0
    """First subject of the list to use."""
    end_idx: int | None = None
    """Subject of the list to stop before; the list's end without it."""
    image_size: int | None = None
    """Resize pictures to this many pixels; their own size without it."""
    plane_size: int = 512
    """Texels along one side of a plane."""
    channels: int = 32
    """Channels of the triplane."""
    color_channels: int = 24
    """How many of them feed the colour network; the rest feed density."""
    hidden: int = 128
    """Width of the decoder's hidden layers."""
    initial_density: float = 20.0
    """Density of the untrained decoder, per world unit. Opaque from the start, colour is learnt
    at surfaces at once; from 1, a fog, the same quality takes several times as long."""
    view_dependent: bool = True
    """Whether colour may depend on the viewing direction. Pictures with light baked into the
    surfaces do not need it, and few views teach it wrongly."""
    init: Literal["random", "mean"] = "random"
    """Start a subject from noise, or from the mean of the triplanes visited before it (plus the
    noise): heads have much in common, so few visits go further, and planes of different subjects
    stay alike where their subjects are."""
    rounds: int = 30
    """How often every subject is visited."""
    inner_steps: int = 5000
    """Steps of one visit."""
    decoder_learning_rate: float = 2e-3
    """Adam step size of the decoder at the start."""
    decoder_decay: float = 0.1
    """Factor the decoder's learning rate falls by over the whole run (exponentially)."""
    revisit_drop: float = 10.0
    """The triplane's learning rate in round r is divided by revisit_drop·r + 1."""
    consolidation_weight: float = 0.1
    """Weight λ/2 of the identity-aware consolidation penalty; 0 turns it off."""
    fisher_batches: int = 8
    """Batches whose squared gradients make an identity's importance."""
    fit: FitSettings = field(default_factory=FitSettings)
    """Settings shared with stage 2."""
    seed: int = 0
    """Fixes every random number."""
    device: str = field(default="auto", metadata={"resumable": True})
    """auto, cpu, cuda or cuda:1."""
    log_every: int = field(default=100, metadata={"resumable": True})
    """Steps between lines of stats.jsonl."""


def fit_decoder(config: FitDecoderConfig) -> None:
    """Run or resume stage 1.

    Raises:
        UserError: on inputs that can't be fitted, or when started as several processes.
    """
    if process_count() > 1:
        raise UserError(
            f"fit-decoder was started as {process_count()} processes: its visits build on one "
            "another, so start one process (the other stages can be spread)"
        )
    data = MultiViewSet(config.root, config.convention)
    names = select_names(
        data.split("train"), config.txt_file, config.start_idx, config.end_idx, data.names
    )
    DecoderFit(config, data, names).run()


class DecoderFit:
    """The schedule of visits and what is kept between them."""

    def __init__(self, config: FitDecoderConfig, data: MultiViewSet, names: list[str]):
        self.config, self.data, self.names = config, data, names
        self.device = select_device(config.device)
        self.folder = RunFolder(config.output_dir, config, "fit-decoder")
        torch.manual_seed(config.seed)
        self.decoder = TriplaneDecoder(config.channels, config.color_channels, config.hidden)
        self.decoder.set_density(config.initial_density)
        self._restrict()
        self.decoder.to(self.device)
        self.optimizer = torch.optim.Adam(
            self.decoder.parameters(), lr=config.decoder_learning_rate, betas=(0.9, 0.99), eps=1e-15
        )
        self.visit = 0
        # Version (visit number + 1) of each subject's stored triplane; 0 = not visited yet.
        self.versions = dict.fromkeys(names, 0)

    def schedule(self, visit: int) -> tuple[int, str]:
        """Round and subject of a visit: every round visits every subject, in a drawn order."""
        turn, position = divmod(visit, len(self.names))
        order = torch.randperm(
            len(self.names), generator=generator(self.config.seed, "order", turn)
        )
        return turn, self.names[int(order[position])]

    def run(self) -> None:
        """All remaining visits, then the triplane folder and the held-out quality."""
        self._resume()
        config, count = self.config, len(self.names)
        total = config.rounds * count * config.inner_steps
        bar = progress(
            total=total, initial=self.visit * config.inner_steps, desc="fit-decoder", unit="step"
        )
        views = _ViewCache(self.data, config.image_size, self.device)
        with bar:
            while self.visit < config.rounds * count:
                turn, name = self.schedule(self.visit)
                self._visit(turn, name, views.train(name), bar)
        self._finish(views)

    def _restrict(self) -> None:
        if not self.config.view_dependent:
            self.decoder.remove_view_dependence()

    def _visit(self, turn: int, name: str, rays: RayPool, bar) -> None:
        config = self.config
        planes, pair = self._load_subject(name)
        fit = SubjectFit(
            name,
            rays,
            planes,
            self.decoder,
            config.fit,
            seed=config.seed,
            visit=turn,
            total=config.inner_steps,
            scale=1 / (config.revisit_drop * turn + 1),
        )
        total = config.rounds * len(self.names) * config.inner_steps
        loss = torch.zeros(())
        for _ in range(config.inner_steps):
            step = self.visit * config.inner_steps + fit.step_index
            for group in self.optimizer.param_groups:
                group["lr"] = config.decoder_learning_rate * config.decoder_decay ** (step / total)
            loss = fit.step(self.optimizer, pair, config.consolidation_weight)
            self._restrict()
            bar.update()
            if (step + 1) % config.log_every == 0:
                if not torch.isfinite(loss):
                    raise UserError(
                        f"the loss of {name} is not finite at step {step}; lower fit.learning_rate "
                        "or decoder_learning_rate and start in a new output folder"
                    )
                bar.set_postfix(subject=name, loss=f"{float(loss):.5f}", refresh=False)
                self.folder.scalars(step + 1, {"loss": float(loss), "round": turn})
        pair = consolidate(
            self.decoder, (fit.loss(k, "fisher") for k in range(config.fisher_batches))
        )
        self._commit(name, fit.planes.detach(), pair)

    # What a visit changes is written first under a new version; the state file that names the
    # versions is replaced last. A kill in between leaves the old version complete.

    def _subject_file(self, name: str, version: int) -> Path:
        return self.folder.state / "subjects" / f"{name}.{version}.safetensors"

    def _load_subject(self, name: str) -> tuple[torch.Tensor, Consolidation | None]:
        config, version = self.config, self.versions[name]
        if version == 0:
            planes = new_planes(
                name,
                config.seed,
                config.channels,
                config.plane_size,
                config.fit.init_std,
                self._mean_planes() if config.init == "mean" else None,
            )
            return planes, None
        tensors, _ = load_tensors(self._subject_file(name, version))
        pair = Consolidation(
            tensors["importance"].to(self.device), tensors["anchor"].to(self.device)
        )
        return tensors["planes"], pair

    def _mean_planes(self) -> torch.Tensor | None:
        """Mean of the stored triplanes [3, C, H, H]; None before the first."""
        visited = [(name, version) for name, version in self.versions.items() if version]
        if not visited:
            return None
        stored = (load_tensors(self._subject_file(*each))[0]["planes"] for each in visited)
        return sum(stored, torch.zeros(())) / len(visited)

    def _commit(self, name: str, planes: torch.Tensor, pair: Consolidation) -> None:
        old = self.versions[name]
        self.visit += 1
        self.versions[name] = self.visit
        save_tensors(
            self._subject_file(name, self.visit),
            {"planes": planes, "importance": pair.importance, "anchor": pair.anchor},
        )
        self.folder.save_state(
            self.visit,
            {
                "visit": self.visit,
                "versions": self.versions,
                "decoder": self.decoder.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
        )
        if old:
            self._subject_file(name, old).unlink(missing_ok=True)

    def _resume(self) -> None:
        state = self.folder.load_state()
        if state is None:
            return
        if set(state["versions"]) != set(self.names):
            raise UserError(
                f"{self.folder.path} was started with other subjects; choose a new output folder"
            )
        self.visit, self.versions = state["visit"], state["versions"]
        self.decoder.load_state_dict(state["decoder"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.folder.rewind(self.visit * self.config.inner_steps)

    def _finish(self, views: _ViewCache) -> None:
        config = self.config
        self.decoder.eval()
        fitted = FittedSet.create(
            self.folder.path,
            self.decoder,
            (3, config.channels, config.plane_size, config.plane_size),
        )
        quality = {}
        for name in progress(self.names, desc="held-out views", unit="subject"):
            planes, _ = self._load_subject(name)
            fitted.put(name, planes)
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
            self.folder.save_image(f"{name}.png", comparison_sheet(held_out, result.images))
        report_quality(self.folder, quality)


class _ViewCache:
    """Pictures of the subjects, read once; small sets stay in memory between visits."""

    def __init__(self, data: MultiViewSet, size: int | None, device, limit: int = 64):
        self.data, self.size, self.device, self.limit = data, size, device, limit
        self._train: dict[str, RayPool] = {}

    def train(self, name: str) -> RayPool:
        if name not in self._train:
            if len(self._train) >= self.limit:
                self._train.pop(next(iter(self._train)))
            frames = self.data.split_views("train", name)
            views = self.data.load(name, frames, self.size)
            self._train[name] = RayPool(views, self.device)
        return self._train[name]

    def test(self, name: str) -> Views | None:
        frames = self.data.split_views("test", name)
        return self.data.load(name, frames, self.size) if frames else None


def report_quality(folder: RunFolder, quality: dict[str, dict[str, float]]) -> None:
    """Write ``quality.json`` (per subject and mean over held-out views) and log the mean."""
    if not quality:
        folder.log("no held-out views in this set: no quality figures")
        return
    mean = {
        key: sum(entry[key] for entry in quality.values()) / len(quality)
        for key in ("psnr", "ssim")
    }
    write_json(folder.path / "quality.json", {"mean": mean, "subjects": quality})
    folder.log(f"held-out views, {len(quality)} subjects: {json.dumps(mean)}")
