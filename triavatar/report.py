"""``triavatar report``: portraits, generated and true views on one sheet."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from captures.multiview import MultiViewSet
from captures.selection import SetConvention
from runtime.config import own_first
from runtime.described import Count, Described, read_described
from runtime.errors import UserError
from runtime.picture_files import read_picture
from triavatar.sheets import Cell, Row, draw_sheet, save_picture


@own_first
@dataclass
class ReportConfig(SetConvention):
    """Settings of ``triavatar report``."""

    evaluation: Path
    """Folder that ``triavatar evaluate`` wrote for the generated avatars."""
    root: Path
    """Multi-view set with portraits and true views."""
    output: Path
    """Picture to write, e.g. report.png."""
    fitted: Path | None = None
    """Folder that ``triavatar evaluate`` wrote for the fitted triplanes, to show them too."""
    columns: int = 3
    """Views shown of every subject."""
    tile: int = 128
    """Side of every picture on the sheet in pixels."""


class _Scores(Described):
    psnr: float


class _Counts(Described):
    correct: Count
    of: Count


class _Match(Described):
    closest: dict[str, str]
    by_identity_split: dict[str, _Counts]


class Evaluation(Described):
    """``metrics.json``."""

    subjects: Annotated[dict[str, _Scores], Field(min_length=1)]
    frames: Annotated[list[Count], Field(min_length=1)]
    mean_by_identity_split: dict[str, dict[str, float]] = {}
    match: _Match | None


def load_evaluation(folder: Path) -> Evaluation:
    """``metrics.json`` of an evaluation.

    Raises:
        UserError: the folder holds none, or it says something else than an evaluation does.
    """
    path = folder / "metrics.json"
    result = read_described(Evaluation, path)
    if result.match is not None and (lacking := result.subjects.keys() - result.match.closest):
        raise UserError(
            f"{path}: match.closest lacks {min(lacking)!r:.80}; run triavatar evaluate again."
        )
    return result


def choose_frames(frames: list[int], columns: int) -> list[int]:
    """``columns`` of the frames, evenly spaced."""
    count = min(columns, len(frames))
    return [frames[i] for i in np.linspace(0, len(frames) - 1, count).round().astype(int)]


def report(config: ReportConfig) -> None:
    """Draw the sheet and print where it lies.

    Raises:
        UserError: an evaluation or a picture is missing.
    """
    result = load_evaluation(config.evaluation)
    fitted = load_evaluation(config.fitted) if config.fitted is not None else None
    dataset = MultiViewSet(config.root, config.convention)
    test = set(dataset.split("test"))
    names = sorted(result.subjects, key=lambda name: (name in test, name))
    rows = [_subject_row(config, dataset, result, fitted, name, name in test) for name in names]
    notes = _notes(result, fitted)
    title = "Avatars from one portrait: views that no stage was trained on"
    save_picture(config.output, draw_sheet(rows, config.tile, title, notes))
    print("\n".join(notes))
    print(f"report: {config.output}")


def _subject_row(
    config: ReportConfig,
    dataset: MultiViewSet,
    result: Evaluation,
    fitted: Evaluation | None,
    name: str,
    held_out: bool,
) -> Row:
    label = f"{name}\n" + ("held-out person" if held_out else "training person")
    label += f"\n{result.subjects[name].psnr:.1f} dB"
    if result.match is not None:
        found = result.match.closest[name]
        label += "\nclosest: " + ("itself" if found == name else found)
    row = Row(label, [Cell(dataset.portrait(name), "portrait")])
    frames = choose_frames(result.frames, config.columns)
    kinds = [("generated", config.evaluation)]
    if fitted is not None and config.fitted is not None and name in fitted.subjects:
        kinds.append(("fitted", config.fitted))
    for kind, folder in kinds:
        for frame in frames:
            picture = read_picture(folder / "views" / name / f"{frame:06d}.png")
            row.cells.append(Cell(picture, f"{kind} {frame}"))
    if len(kinds) == 1 and config.fitted is not None:
        row.cells += [Cell(None, "not fitted") for _ in frames]
    true = dataset.load(name, frames)
    row.cells += [
        Cell(picture, f"true {frame}") for picture, frame in zip(true.images, frames, strict=True)
    ]
    return row


def _notes(result: Evaluation, fitted: Evaluation | None) -> list[str]:
    notes = []
    for kind, evaluation in (("generated", result), ("fitted", fitted)):
        if evaluation is None:
            continue
        by_split = evaluation.mean_by_identity_split
        for split, values in by_split.items():
            figures = ", ".join(f"{key} {value:.3f}" for key, value in values.items())
            notes.append(f"{kind}, {split} people: {figures}")
    if result.match is not None:
        for split, counts in result.match.by_identity_split.items():
            notes.append(
                f"generated, {split} people closest to their own true views: "
                f"{counts.correct} of {counts.of}"
            )
    return notes
