"""``triavatar study likeness``: how much of a stranger one portrait gives, way by way.

Legend: N people, V views of each, H W picture size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from captures.multiview import MultiViewSet, Views
from likeness.fit import fit_likeness
from likeness.learned.likeness_model import LikenessModel, learn_likeness
from likeness.learned.train_likeness import fitted_people
from likeness.portrait.portrait import Portrait
from likeness.settings import LikenessSettings
from renderer.fitted_set import FittedSet
from renderer.metrics import psnr, ssim
from renderer.render import RenderSettings, render_images
from runtime.config import check_settings
from runtime.described import Described, read_described
from runtime.files import write_json, write_text
from runtime.formats.tensor_files import load_tensors, save_tensors
from runtime.progress import progress
from runtime.runs import RunFolder
from studies.likeness_methods import METHODS, settings_of


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
    n_train: int | None = None
    """Only the first so many training people (for a scaling curve)."""
    components: int = 256
    """Of a prior learnt afresh."""
    identities: Literal["validation", "test"] = "validation"
    """Held-out people to measure on."""
    n_people: int | None = field(default=None, metadata={"resumable": True})
    """Only the first so many of them."""
    methods: tuple[str, ...] = field(
        default=("mean", "nearest", "linear", "regression", "guide", "full"),
        metadata={"resumable": True},
    )
    """What to compare; see the page on likeness for all names."""
    likeness: LikenessSettings = field(default_factory=LikenessSettings)
    """Settings of "full", from which the others differ."""


@dataclass(frozen=True)
class _Study:
    views: MultiViewSet
    fitted: FittedSet
    model: LikenessModel
    train: list[str]


def study_likeness(config: StudyLikenessConfig) -> None:
    """Make avatars of held-out people in several ways and compare them with the truth.

    Raises:
        UserError: a method is unknown, or people, triplanes or the model are missing.
    """
    check_settings(config)
    for method in config.methods:
        settings_of(method, config.likeness)
    views, fitted = MultiViewSet(config.root), FittedSet.open(config.triplanes)
    train = fitted_people(views, fitted, "train", config.n_train)
    crowd = views.split(config.identities)
    people = crowd[: config.n_people]
    run = RunFolder(config.output_dir, config, "study likeness")
    folder = config.model or run.path / "model"
    if not (folder / "config.json").is_file():
        learn_likeness(views, fitted, train, config.components).save(folder)
    model = LikenessModel.load(folder, str(fitted.manifest["decoder_hash"]))
    study = _Study(views, fitted, model, train)
    tasks = [(method, name) for name in people for method in config.methods]
    for method, name in progress(tasks, desc="study likeness", unit="avatar"):
        if not _row_file(run.path, method, name).is_file():
            _measure(study, config, run.path, method, name)
    # However few are measured, each is looked for among all of the split.
    truth = torch.stack([_truth(views.load(name)) for name in crowd])
    table = {method: _summary(run.path, method, people, truth) for method in config.methods}
    write_json(run.path / "likeness.json", {"people": people, "table": table})
    write_text(run.path / "likeness.md", _markdown(table, len(train), len(people), len(crowd)))
    run.log("\n" + _markdown(table, len(train), len(people), len(crowd)))


def _row_file(folder: Path, method: str, name: str) -> Path:
    return folder / "avatars" / method / f"{name}.json"


def _truth(views: Views) -> Tensor:
    """True pictures on white, uint8 [V, H, W, 3]."""
    return (views.composited(1.0) * 255 + 0.5).to(torch.uint8)


class _Row(Described):
    """Measures of one avatar's views, the portrait's first."""

    psnr: Annotated[list[float], Field(min_length=2)]
    ssim: Annotated[list[float], Field(min_length=1)]
    seconds: float = 0.0


def _measure(
    study: _Study, config: StudyLikenessConfig, folder: Path, method: str, name: str
) -> None:
    """Make one avatar, render it from everywhere and write both."""
    views = study.views.load(name)
    decoder = study.fitted.decoder()
    portrait = Portrait.of(views.images[0], views.cameras[0])
    record: dict[str, Any] = {}
    if method == "mean":
        planes = study.model.prior.mean
    elif method == "nearest":
        planes = study.fitted.load(_nearest(study, portrait))
    elif method == "fitted":
        planes = study.fitted.load(name)
    else:
        settings = settings_of(method, config.likeness)
        planes, found = fit_likeness(portrait, study.model, decoder, settings)
        record = found.as_dict()
    march = RenderSettings(steps=256, grid=64)
    seen = render_images(planes, decoder, views.cameras, 1.0, march).color
    truth = views.composited(1.0)
    row = {"psnr": psnr(seen, truth).tolist(), "ssim": ssim(seen, truth).tolist(), **record}
    pictures = (seen * 255 + 0.5).to(torch.uint8)
    file = _row_file(folder, method, name)
    save_tensors(file.with_suffix(".safetensors"), {"pictures": pictures})
    write_json(file, row)


def _nearest(study: _Study, portrait: Portrait) -> str:
    """The training person whose portrait looks most like this one."""

    def error(name: str) -> float:
        other = Portrait.of(study.views.portrait(name), portrait.camera)
        return float((other.color - portrait.color).square().mean())

    return min(study.train, key=error)


def _summary(folder: Path, method: str, people: list[str], truth: Tensor) -> dict[str, float]:
    """Means over people, the first in ``truth``; who of all these is closest, by unseen views."""
    rows = [read_described(_Row, _row_file(folder, method, name)).model_dump() for name in people]
    closest = 0
    for index, name in enumerate(people):
        file = _row_file(folder, method, name).with_suffix(".safetensors")
        pictures = load_tensors(file)[0]["pictures"].float()
        errors = (truth[:, 1:].float() - pictures[1:]).square().mean(dim=(2, 3, 4))
        # As the table does, by the mean of the views' PSNR rather than of their errors.
        closest += int(errors.clamp(min=1e-6).log10().mean(dim=1).argmin()) == index
    return {
        "portrait_psnr": _mean([row["psnr"][0] for row in rows]),
        "psnr": _mean([_mean(row["psnr"][1:]) for row in rows]),
        "worst_psnr": min(_mean(row["psnr"][1:]) for row in rows),
        "ssim": _mean([_mean(row["ssim"][1:]) for row in rows]),
        "rank_1": closest / len(people),
        "seconds": _mean([row.get("seconds", 0.0) for row in rows]),
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _markdown(table: dict[str, dict[str, float]], train: int, people: int, crowd: int) -> str:
    """The table for people to read."""
    lines = [
        f"{people} strangers, looked for among {crowd}; learnt from {train} people and their "
        "mirror images:",
        "",
        "| | unseen views, dB | SSIM | worst stranger | portrait, dB | closest to self | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, row in table.items():
        lines.append(
            f"| {METHODS.get(method, method)} | {row['psnr']:.2f} | {row['ssim']:.3f} "
            f"| {row['worst_psnr']:.1f} | {row['portrait_psnr']:.2f} | {row['rank_1']:.0%} "
            f"| {row['seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"
