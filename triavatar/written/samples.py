"""Several avatars of one portrait: where they differ, the portrait leaves the person open.

Legend: M samples, N views, H W picture size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from likeness.uncertainty import disagreement, heat
from triavatar.avatar import Avatar, to_bytes
from triavatar.render_avatar import ViewConfig
from triavatar.sheets import Cell, Row, draw_sheet, save_picture
from triavatar.views import still_cameras

SIZE = 160
TOP = 0.2
"""Deviation, in units of sRGB, that is drawn darkest."""


def write_samples(
    folder: Path, avatar: Avatar, samples: Sequence[Avatar], views: ViewConfig
) -> dict[str, object]:
    """Write ``samples.png``, ``uncertainty.png`` and the samples; what the record says of them.

    Args:
        folder: of the avatar.
        samples: M others of the same portrait.
        views: where they are looked at from.
    """
    azimuths = views.azimuths
    cameras = still_cameras(azimuths, SIZE, views.elevation, views.distance)
    everyone = [avatar, *samples]
    rows = []
    for index, one in enumerate(everyone):
        label = "most likely" if index == 0 else f"sample {index}"
        pictures = one.pictures(cameras, settings=views.march, desc=label)
        cells = [Cell(picture, f"{a:+.0f}°") for picture, a in zip(pictures, azimuths, strict=True)]
        rows.append(Row(label, cells))
    planes = [one.planes for one in everyone]
    deviation = disagreement(planes, avatar.decoder, cameras, views.march).cpu()
    opacity = avatar.render(cameras, settings=views.march).opacity.cpu()
    maps = to_bytes(heat(deviation, TOP))
    means = [_over(d, o) for d, o in zip(deviation, opacity, strict=True)]
    labels = [f"{a:+.0f}°: {100 * m:.1f} %" for a, m in zip(azimuths, means, strict=True)]
    cells = [Cell(picture, label) for picture, label in zip(maps, labels, strict=True)]
    note = f"where they differ: white not at all, dark red by {TOP:.0%} of the range of colours"
    save_picture(folder / "uncertainty.png", draw_sheet([Row("", cells)], SIZE, "", [note]))
    rows.append(Row("differ by", cells))
    save_picture(folder / "samples.png", draw_sheet(rows, SIZE, avatar.name, [note]))
    for index, one in enumerate(samples):
        one.name = f"sample_{index + 1}"
        one.save(folder / "samples")
    return {
        "count": len(samples),
        "differ": {f"{a:+.0f}": round(m, 4) for a, m in zip(azimuths, means, strict=True)},
    }


def _over(deviation: torch.Tensor, opacity: torch.Tensor) -> float:
    """Mean of [H, W] over the person."""
    inside = np.asarray(opacity) > 0.5
    return float(np.asarray(deviation)[inside].mean()) if inside.any() else 0.0
