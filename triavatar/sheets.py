"""Drawing labelled sheets of pictures.

Letters: H, W picture size in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from runtime.files import atomic_path

GAP = 6
LABEL_HEIGHT = 18
INK = (40, 40, 40)
PAPER = (255, 255, 255)


def on_white(picture: np.ndarray) -> np.ndarray:
    """Composite uint8 [H, W, 3|4] on white: uint8 [H, W, 3]."""
    if picture.shape[2] == 3:
        return picture
    alpha = picture[..., 3:].astype(np.float32) / 255
    return (picture[..., :3] * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)


def save_picture(path: Path, picture: np.ndarray) -> None:
    """Write uint8 [H, W, 3|4], atomically; the suffix gives the format."""
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary)


@dataclass
class Cell:
    """One picture of a sheet: uint8 [H, W, 3|4] or None for an empty place, and its label."""

    picture: np.ndarray | None = None
    label: str = ""


@dataclass
class Row:
    """One row of a sheet with its label, of one line or more, on the left."""

    label: str
    cells: list[Cell] = field(default_factory=list)


def draw_sheet(
    rows: Sequence[Row], tile: int, title: str = "", notes: Sequence[str] = ()
) -> np.ndarray:
    """Draw rows of square tiles on white paper.

    Args:
        rows: pictures are resized to ``tile`` pixels; rows may differ in length.
        tile: side of a tile in pixels.
        title: first line.
        notes: lines under the rows.

    Returns:
        uint8 [H, W, 3].
    """
    font = ImageFont.load_default(size=12)
    large = ImageFont.load_default(size=16)
    lines = [line for row in rows for line in row.label.split("\n")]
    margin = max(int(font.getlength(line)) + 2 * GAP for line in lines)
    columns = max(len(row.cells) for row in rows)
    width = margin + columns * (tile + GAP) + GAP
    width = max([width, *(int(font.getlength(note)) + 2 * GAP for note in notes)])
    width = max(width, int(large.getlength(title)) + 2 * GAP)
    top = 30 if title else GAP
    row_height = tile + LABEL_HEIGHT + GAP
    height = top + len(rows) * row_height + len(notes) * LABEL_HEIGHT + GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), title, fill=INK, font=large)
    for i, row in enumerate(rows):
        y = top + i * row_height
        draw.multiline_text((GAP, y + tile // 2), row.label, fill=INK, font=font, anchor="lm")
        for j, cell in enumerate(row.cells):
            x = margin + j * (tile + GAP)
            if cell.picture is not None:
                picture = Image.fromarray(on_white(cell.picture))
                sheet.paste(picture.resize((tile, tile), Image.Resampling.LANCZOS), (x, y))
            length = font.getlength(cell.label)
            draw.text(
                (x + max(0, (tile - length) / 2), y + tile + 1), cell.label, fill=INK, font=font
            )
    for i, note in enumerate(notes):
        y = top + len(rows) * row_height + i * LABEL_HEIGHT
        draw.text((GAP, y), note, fill=INK, font=font)
    return np.asarray(sheet)
