"""A contact sheet of a set and a histogram of its attributes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from captures.multiview import MultiViewSet, resize_rgba
from runtime.config import check_settings, setting
from runtime.errors import UserError
from runtime.files import atomic_path

_BAR = (70, 120, 180)
INK = (20, 20, 20)
BACKGROUND = (214, 218, 223)  # light and dark hair stand out


@dataclass
class StudioSheetConfig:
    """Draw a contact sheet and an attribute histogram of a multi-view set."""

    root: Path = Path("data/example")
    """Folder of the set."""
    output: Path = Path("sheet.png")
    """Picture to write, PNG or JPEG by its suffix; the histogram lies beside it as
    NAME_attributes.png."""
    n_subjects: int = setting(24, at_least=1, at_most=10**6)
    """Most subjects on the sheet."""
    frames: tuple[int, ...] = (0,)
    """Views of each subject, side by side."""
    columns: int = setting(6, at_least=1, at_most=1000)
    """Subjects in a row."""
    size: int = setting(160, at_least=1, at_most=4096)
    """Side of a picture in pixels."""


def draw_sheet(config: StudioSheetConfig) -> None:
    """Write the sheet, and the histogram if the set has attribute labels.

    Raises:
        UserError: no set at `root`, or it lacks a frame.
    """
    check_settings(config)
    views = MultiViewSet(config.root)
    names = views.names[: config.n_subjects]
    columns = min(config.columns, len(names))
    rows = -(-len(names) // columns)
    cell, wide = config.size, config.size * len(config.frames)
    sheet = Image.new("RGB", (columns * wide, rows * cell), BACKGROUND)
    for k, name in enumerate(names):
        loaded = views.load(name, frames=list(config.frames))
        for j in range(len(config.frames)):
            picture = Image.fromarray(np.asarray(loaded.images[j]), "RGBA")
            picture = resize_rgba(picture, cell)
            place = ((k % columns) * wide + j * cell, (k // columns) * cell)
            sheet.paste(picture, place, picture)
    save_picture(sheet, config.output)
    labels = [views.attributes(name).get("labels") for name in views.names]
    known = [label for label in labels if isinstance(label, dict)]
    if known:
        beside = config.output.with_name(f"{config.output.stem}_attributes.png")
        save_picture(_histogram(known), beside)


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture, as JPEG or PNG by the path's suffix.

    Raises:
        UserError: the path can't be written.
    """
    try:
        with atomic_path(path) as temporary:
            if path.suffix.lower() in (".jpg", ".jpeg"):
                picture.save(temporary, format="JPEG", quality=88, optimize=True)
            else:
                picture.save(temporary, format="PNG", optimize=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another output") from error


def _histogram(labels: list[dict[str, str]]) -> Image.Image:
    """Bars of how often every value of every attribute occurs."""
    lines: list[tuple[str, int | None]] = []
    for key in labels[0]:
        lines.append((key, None))
        counts = Counter(str(label.get(key, "")) for label in labels)
        lines.extend((f"  {value}", n) for value, n in sorted(counts.items()))
    half = -(-len(lines) // 2)
    height, width = 16, 570
    picture = Image.new("RGB", (2 * width, height * half + 8), "white")
    pen = ImageDraw.Draw(picture)
    for i, (text, count) in enumerate(lines):
        x, y = (i // half) * width + 8, (i % half) * height + 4
        pen.text((x, y), text, fill=INK)
        if count is not None:
            length = round(230 * count / len(labels))
            pen.rectangle((x + 290, y + 2, x + 290 + length, y + 12), fill=_BAR)
            pen.text((x + 296 + length, y), str(count), fill=INK)
    return picture
