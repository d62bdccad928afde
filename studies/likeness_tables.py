"""The tables of ``triavatar study likeness``.

Legend: N people, V views of each, H W picture size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from captures.cameras import Cameras
from captures.multiview import MultiViewSet
from runtime.described import Described, read_described
from runtime.errors import UserError
from runtime.formats.tensor_files import load_tensors
from studies.likeness_methods import METHODS

Table = dict[str, dict[str, float]]
PHOTOGRAPH = "portraits drawn as photographs are"


class Row(Described):
    """Measures of one avatar: of its views, the frontal one first, and what making it took."""

    psnr: Annotated[list[float], Field(min_length=2)]
    ssim: Annotated[list[float], Field(min_length=2)]
    seconds: float = 0.0
    memory_mb: float


class Truth:
    """True pictures of people, on white, kept once they were read.

    Args:
        size: side of the pictures, in pixels; the set's own without.
    """

    def __init__(self, views: MultiViewSet, size: int | None) -> None:
        self.views, self.size = views, size
        self._pictures: dict[str, Tensor] = {}
        self._cameras: dict[str, Cameras] = {}

    def of(self, name: str) -> Tensor:
        """uint8 [V, H, W, 3]."""
        if name not in self._pictures:
            views = self.views.load(name)
            size = self.size or views.cameras.width
            if size > views.cameras.width:
                raise UserError(
                    f"{self.views.root} holds pictures of {views.cameras.width}², too small for "
                    f"--size {size}; give a set that was drawn at that size"
                )
            pictures = views.composited(1.0)
            if size < views.cameras.width:
                pictures = _shrunk(pictures, size)
            self._cameras[name] = views.cameras.scaled_to(size, size)
            self._pictures[name] = (pictures * 255 + 0.5).to(torch.uint8)
        return self._pictures[name]

    def cameras(self, name: str) -> Cameras:
        """The cameras of :meth:`of`."""
        self.of(name)
        return self._cameras[name]

    def of_all(self, names: list[str]) -> Tensor:
        """uint8 [N, V, H, W, 3]."""
        return torch.stack([self.of(name) for name in names])


def _shrunk(pictures: Tensor, size: int) -> Tensor:
    """Pictures [V, H, W, 3] at ``size`` × ``size`` pixels (area filter)."""
    moved = pictures.permute(0, 3, 1, 2)
    small = torch.nn.functional.interpolate(moved, (size, size), mode="bilinear", antialias=True)
    return small.permute(0, 2, 3, 1).clamp(0, 1)


def row_file(folder: Path, portrait: str, people: int, method: str, name: str) -> Path:
    """Where the figures of one avatar are."""
    return folder / "avatars" / portrait / str(people) / method / f"{name}.json"


def summary(files: list[Path], truth: Tensor) -> dict[str, float]:
    """Means over people; who is closest to each by the views that are not the portrait.

    Args:
        files: figures of the first of those in ``truth``.
        truth: uint8 [N, V, H, W, 3].
    """
    rows = [read_described(Row, file) for file in files]
    unseen = [_mean(row.psnr[1:]) for row in rows]
    closest = 0
    for index, file in enumerate(files):
        pictures = load_tensors(file.with_suffix(".safetensors"))[0]["pictures"][1:].float()
        # One person after another: all views of many people at once would not fit in memory.
        errors = torch.stack(
            [(other[1:].float() - pictures).square().mean(dim=(1, 2, 3)) for other in truth]
        )
        # As the table does, by the mean of the views' PSNR rather than of their errors.
        closest += int(errors.clamp(min=1e-6).log10().mean(dim=1).argmin()) == index
    return {
        "psnr": _mean(unseen),
        "ssim": _mean([_mean(row.ssim[1:]) for row in rows]),
        "worst_psnr": min(unseen),
        "portrait_psnr": _mean([row.psnr[0] for row in rows]),
        "rank_1": closest / len(rows),
        "seconds": _mean([row.seconds for row in rows]),
        "memory_mb": max(row.memory_mb for row in rows),
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def markdown(sections: dict[str, Table], people: int, crowd: int) -> str:
    """All tables for people to read, and how they change with the number of people learnt from.

    Args:
        sections: "portrait/people learnt from" → way → figures.
    """
    parts = []
    for key, table in sections.items():
        portrait, learnt = key.split("/")
        shown = PHOTOGRAPH if portrait == "photograph" else "neutral, frontal portraits"
        parts.append(
            f"{people} strangers, {shown}, looked for among {crowd}; learnt from {learnt} people "
            f"and their mirror images:\n\n{_table(table)}"
        )
    if len({key.split("/")[1] for key in sections}) > 1:
        parts.append(f"Unseen views (dB) by people learnt from:\n\n{_curve(sections)}")
    return "\n".join(parts)


def _table(table: Table) -> str:
    """One table; ways that leave a part out tell what the part is worth."""
    lines = [
        "| | unseen views, dB | SSIM | worst stranger | front, dB | closest to self "
        "| seconds | MB | the part's share |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method, row in table.items():
        share = ""
        if method.startswith("full_without_") and "full" in table:
            full = table["full"]
            unseen, front = (full[k] - row[k] for k in ("psnr", "portrait_psnr"))
            share = f"{unseen:+.2f} dB unseen, {front:+.2f} dB front"
        lines.append(
            f"| {METHODS[method]} | {row['psnr']:.2f} | {row['ssim']:.3f} "
            f"| {row['worst_psnr']:.1f} | {row['portrait_psnr']:.2f} | {row['rank_1']:.0%} "
            f"| {row['seconds']:.1f} | {row['memory_mb']:.0f} | {share} |"
        )
    return "\n".join(lines) + "\n"


def _curve(sections: dict[str, Table]) -> str:
    """Ways down, portraits and numbers of people across."""
    methods = list(next(iter(sections.values())))
    heads = [key.replace("/", ", ") for key in sections]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for method in methods:
        cells = [f"{table[method]['psnr']:.2f}" for table in sections.values()]
        lines.append(f"| {METHODS[method]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
