"""``triavatar study likeness``: how much of a stranger one portrait gives, way by way.

Legend: N people, V views of each, H W picture size.

::

    <output_dir>/likeness.md, likeness.json       the tables
    <output_dir>/models/<people>/                 models learnt afresh
    <output_dir>/avatars/<portrait>/<people>/<way>/<person>.json, .safetensors
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from captures.multiview import MultiViewSet
from captures.photographs import portrait_numbers
from likeness.fit import fit_likeness
from likeness.learned.encoder import EncoderSettings
from likeness.learned.likeness_model import LikenessModel, learn_likeness
from likeness.learned.regression import small_pixels
from likeness.learned.train_likeness import fitted_people
from likeness.portrait.portrait import Portrait
from likeness.settings import LikenessSettings
from renderer.fitted_set import FittedSet
from renderer.metrics import psnr, ssim
from renderer.render import RenderSettings, render_images
from runtime.config import check_settings, setting
from runtime.errors import UserError
from runtime.files import write_json, write_text
from runtime.formats.tensor_files import save_tensors
from runtime.progress import progress
from runtime.runs import RunFolder
from studies.likeness_methods import every_method, settings_of
from studies.likeness_tables import Truth, markdown, row_file, summary
from studies.peak_memory import peak_megabytes, restart_peak

Kind = Literal["frame", "photograph"]


@dataclass
class StudyLikenessConfig:
    """Settings of ``triavatar study likeness``."""

    root: Path
    """Multi-view set with held-out people; frame 0 of each is the portrait."""
    triplanes: Path
    """Triplanes of its training people: output folder of fit-triplanes."""
    output_dir: Path
    """Run folder: likeness.json, likeness.md, the pictures compared."""
    model: Path | None = None
    """Folder of train-likeness; learnt afresh without."""
    n_train: tuple[int, ...] = setting((), resumable=True)
    """Learn afresh from the first so many training people, once for each number: a scaling
    curve. Without, one model: the given one, or learnt from all."""
    components: int = 256
    """Of a prior learnt afresh, at most."""
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    """Of networks trained afresh; `--encoder.folds 0` saves their time."""
    identities: Literal["validation", "test"] = "validation"
    """Held-out people to measure on."""
    n_people: int | None = setting(None, resumable=True, at_least=1)
    """Only the first so many of them."""
    portraits: tuple[Kind, ...] = setting(("frame",), resumable=True)
    """frame: the set's frontal picture; photograph: a portrait drawn as photographs are, under
    random light, turned, framed wrongly (studio render --portraits)."""
    methods: tuple[str, ...] = setting(
        ("mean", "nearest", "linear", "regression", "guide", "full"), resumable=True
    )
    """What to compare; "floors" and "parts" stand for several. The page on likeness names all."""
    size: int | None = None
    """Side of the pictures compared and of the portrait, in pixels; the set's own size and
    ``likeness.size`` without."""
    likeness: LikenessSettings = field(default_factory=LikenessSettings)
    """Settings of "full", from which the others differ."""


@dataclass(frozen=True)
class _Task:
    """One avatar to make."""

    portrait: str
    people: int
    method: str
    name: str


class _Study:
    """What all avatars of one model need."""

    def __init__(
        self,
        views: MultiViewSet,
        fitted: FittedSet,
        model: LikenessModel,
        train: list[str],
        config: StudyLikenessConfig,
    ) -> None:
        self.views, self.fitted, self.model = views, fitted, model
        self.train, self.config = train, config
        self.truth = Truth(views, config.size)

    @cached_property
    def known(self) -> Tensor:
        """Small portraits of the training people, [N, …]."""
        camera = self.model.camera
        return torch.stack(
            [small_pixels(Portrait.of(self.views.portrait(n), camera)) for n in self.train]
        )

    def planes(self, task: _Task) -> tuple[Tensor, dict[str, Any]]:
        """The avatar's planes, and what was found out on the way."""
        if task.method == "mean":
            return self.model.prior.mean, {}
        if task.method == "fitted":
            return self.fitted.load(task.name), {}
        portrait = self._portrait(task)
        if task.method == "nearest":
            errors = (self.known - small_pixels(portrait)).square().sum(dim=1)
            return self.fitted.load(self.train[int(errors.argmin())]), {}
        settings = settings_of(task.method, self.config.likeness)
        settings.size = self.config.size or settings.size
        planes, record = fit_likeness(portrait, self.model, self.fitted.decoder(), settings)
        return planes, record.as_dict()

    def _portrait(self, task: _Task) -> Portrait:
        """As an avatar is made of it: how the camera departs from the usual one is not told."""
        if task.portrait == "frame":
            return Portrait.of(self.views.portrait(task.name), self.model.camera)
        numbers = portrait_numbers(self.views.root / task.name)
        if not numbers:
            raise UserError(
                f"{self.views.root / task.name} holds no portraits drawn as photographs are; draw "
                "them with studio render --portraits 1, or leave out --portraits photograph"
            )
        drawn = self.views.portraits(task.name, numbers[:1])[0]
        return Portrait.of(drawn.image, self.model.camera)


def study_likeness(config: StudyLikenessConfig) -> None:
    """Make avatars of held-out people in several ways and compare them with the truth.

    Raises:
        UserError: a way is unknown, or people, portraits, triplanes or the model are missing.
    """
    check_settings(config)
    methods = every_method(config.methods)
    views, fitted = MultiViewSet(config.root), FittedSet.open(config.triplanes)
    crowd = views.split(config.identities)
    people = crowd[: config.n_people]
    everyone = fitted_people(views, fitted, "train")
    if config.n_train and max(config.n_train) > len(everyone):
        raise UserError(
            f"{config.triplanes} holds {len(everyone)} training people; --n_train asks for "
            f"{max(config.n_train)}"
        )
    run = RunFolder(config.output_dir, config, "study likeness")
    sections: dict[str, dict[str, dict[str, float]]] = {}
    for count in config.n_train or (len(everyone),):
        study = _study(views, fitted, everyone[:count], config, run.path)
        learnt = study.model.prior.people
        for portrait in config.portraits:
            tasks = [_Task(portrait, learnt, m, n) for n in people for m in methods]
            for task in progress(tasks, desc=f"{portrait}, {learnt} people", unit="avatar"):
                if not row_file(run.path, portrait, learnt, task.method, task.name).is_file():
                    _measure(study, task, run.path)
            # However few are measured, each is looked for among all of the split.
            sections[f"{portrait}/{learnt}"] = {
                method: summary(
                    [row_file(run.path, portrait, learnt, method, name) for name in people],
                    study.truth.of_all(crowd),
                )
                for method in methods
            }
    text = markdown(sections, len(people), len(crowd))
    write_json(run.path / "likeness.json", {"people": people, "tables": sections})
    write_text(run.path / "likeness.md", text)
    run.log("\n" + text)


def _study(
    views: MultiViewSet,
    fitted: FittedSet,
    train: list[str],
    config: StudyLikenessConfig,
    folder: Path,
) -> _Study:
    """Load the model that is asked for; learn it first if it isn't there."""
    place = config.model if config.model and not config.n_train else None
    place = place or folder / "models" / str(len(train))
    if config.model != place and not (place / "config.json").is_file():
        kept = place / "networks"
        learn_likeness(views, fitted, train, config.components, config.encoder, kept).save(place)
    model = LikenessModel.load(place, str(fitted.manifest["decoder_hash"]))
    return _Study(views, fitted, model, train, config)


def _measure(study: _Study, task: _Task, folder: Path) -> None:
    """Make one avatar, render it from everywhere and write both."""
    restart_peak()
    planes, record = study.planes(task)
    memory = peak_megabytes()
    cameras, truth = study.truth.cameras(task.name), study.truth.of(task.name)
    march = RenderSettings(steps=256, grid=64)
    seen = render_images(planes, study.fitted.decoder(), cameras, 1.0, march).color
    target = truth.float() / 255
    scores = {"psnr": psnr(seen, target).tolist(), "ssim": ssim(seen, target).tolist()}
    file = row_file(folder, task.portrait, task.people, task.method, task.name)
    pictures = (seen * 255 + 0.5).to(torch.uint8)
    save_tensors(file.with_suffix(".safetensors"), {"pictures": pictures})
    write_json(file, {**scores, "memory_mb": memory, **record})
