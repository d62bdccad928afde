"""Sheets of random subjects from several sides and in several expressions, for people to judge."""

from __future__ import annotations

import csv
import math
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from captures.cameras import look_at, pinhole
from runtime.config import check_settings, setting
from runtime.errors import UserError
from runtime.files import atomic_path
from runtime.progress import progress
from studio.assets import AssetFolder
from studio.looks.head_rig import DISTANCE, PORTRAIT_FOV
from studio.looks.pose import EXPRESSIONS, Pose
from studio.people.random_subject import sample_subject
from studio.people.subject import Subject
from studio.people.words import sentence
from studio.sets.contact_sheet import BACKGROUND, INK, save_picture

LINE = 12  # height of a line of text in pixels
LETTER = 6  # and width of a letter
VERDICTS = "verdicts.csv"


@dataclass
class StudioReviewConfig:
    """Draw random subjects from several sides and in several expressions, to be judged by eye."""

    output_dir: Path = Path("review")
    """Folder for sheet_00.png, … and verdicts.csv, a table of the subjects to note verdicts in; a
    table that is there already is left alone."""
    assets: Path | None = None
    """Folder with the clones makehuman/ and makehuman-assets/; default: $TRIAVATAR_ASSETS."""
    seed: int = 0
    """Seed of the subjects; they are those of `studio render` with this seed."""
    n_subjects: int = setting(48, at_least=1, at_most=10**6)
    """How many subjects, from the first one of the seed."""
    subjects: tuple[int, ...] = ()
    """Numbers of the subjects to draw, in place of the first n_subjects."""
    directions: tuple[float, ...] = (0.0, 55.0, 180.0)
    """Azimuths from which the resting face is drawn, degrees from the front to the subject's
    left."""
    elevation: float = setting(0.0, at_least=-85, at_most=85)
    """Height of the cameras, degrees above the horizon."""
    expressions: tuple[str, ...] = ("laugh", "surprise", "anger", "sadness", "closed eyes")
    """Expressions drawn from the first direction."""
    all_pairs: bool = False
    """Draw every expression from every direction, a row for each."""
    per_sheet: int = setting(6, at_least=1, at_most=1000)
    """Subjects on a sheet, one under the other."""
    size: int = setting(192, at_least=1, at_most=4096)
    """Side of a picture in pixels."""

    def check(self) -> None:
        """Refuse to draw nothing, or what nobody can draw (UserError)."""
        if not self.directions:
            raise UserError("review needs at least one direction")
        for name in self.expressions:
            if name not in EXPRESSIONS:
                raise UserError(f'unknown expression "{name}"; known are {", ".join(EXPRESSIONS)}')


def review(config: StudioReviewConfig) -> None:
    """Write the sheets, one after the other, and the table.

    Raises:
        UserError: bad configuration or assets.
    """
    check_settings(config)
    assets = AssetFolder(config.assets)
    numbers = list(config.subjects or range(config.n_subjects))
    people = [sample_subject(assets, config.seed, index) for index in numbers]
    _write_table(people, config.output_dir / VERDICTS)
    bar = progress(total=len(people), desc="studio review", unit="subject")
    for start in range(0, len(people), config.per_sheet):
        rows = []
        for subject in people[start : start + config.per_sheet]:
            rows.append(_captioned(_pictures(assets, subject, config), subject))
            bar.update()
        sheet = np.concatenate(rows)
        name = f"sheet_{start // config.per_sheet:02d}.png"
        save_picture(Image.fromarray(sheet), config.output_dir / name)
    bar.close()


def _pictures(assets: AssetFolder, subject: Subject, config: StudioReviewConfig) -> np.ndarray:
    """Pictures of one subject, uint8 [rows · size, columns · size, 3]."""
    from studio.drawing.raster import Camera, draw
    from studio.people.figure import build_scene

    angles = np.radians(config.directions)
    height = math.radians(config.elevation)
    flat = math.cos(height)
    eyes = np.stack(
        [flat * np.sin(angles), np.full_like(angles, math.sin(height)), flat * np.cos(angles)], -1
    )
    eyes = DISTANCE * torch.from_numpy(eyes)
    rig = pinhole(look_at(eyes, torch.zeros(3, dtype=eyes.dtype)), PORTRAIT_FOV, config.size)
    rows: list[list[np.ndarray]] = [[]]
    for name in ("resting", *config.expressions):
        whole = config.all_pairs or name == "resting"
        if config.all_pairs and rows[-1]:
            rows.append([])
        texture_size = 1024 if config.size <= 256 else 2048
        scene = build_scene(assets, subject, texture_size, Pose(name, EXPRESSIONS[name]))
        for view in range(len(angles) if whole else 1):
            rgba = Image.fromarray(draw(scene, Camera.of(rig, view)), "RGBA")
            picture = Image.new("RGB", rgba.size, BACKGROUND)
            picture.paste(rgba, (0, 0), rgba)
            rows[-1].append(np.asarray(picture))
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def _captioned(picture: np.ndarray, subject: Subject) -> np.ndarray:
    """The picture with the subject's number and sentence under it."""
    width = picture.shape[1]
    text = f"seed {subject.seed}, subject {subject.index}: {sentence(subject)}"
    lines = textwrap.wrap(text, max(12, (width - 8) // LETTER))
    caption = Image.new("RGB", (width, LINE * len(lines) + 8), "white")
    pen = ImageDraw.Draw(caption)
    for i, line in enumerate(lines):
        pen.text((4, 2 + LINE * i), line, fill=INK)
    return np.concatenate([picture, np.asarray(caption)])


def _write_table(people: list[Subject], path: Path) -> None:
    """A row a subject, with empty columns for the verdict; an existing table is kept."""
    if path.exists():
        return
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["seed", "subject", "sentence", "whole", "passes", "remark"])
        for subject in people:
            table.writerow([subject.seed, subject.index, sentence(subject), "", "", ""])
