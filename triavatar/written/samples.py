"""Several avatars of one portrait: where they differ, the portrait leaves the person open.

Legend: M samples, N views, H W picture size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from likeness.uncertainty import deviation, heat
from triavatar.avatar import Avatar, to_bytes
from triavatar.render_avatar import ViewConfig
from triavatar.sheets import Cell, Row, draw_sheet, on_white, save_picture
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
    rows, seen = [], []
    for index, one in enumerate(everyone):
        label = "the avatar" if index == 0 else f"sample {index}"
        rgba = one.pictures(cameras, settings=views.march, alpha=True, desc=label)
        pictures = np.stack([on_white(picture) for picture in rgba])
        seen.append(torch.from_numpy(rgba) / 255)
        cells = [Cell(picture, f"{a:+.0f}°") for picture, a in zip(pictures, azimuths, strict=True)]
        rows.append(Row(label, cells))
    opacity = seen[0][..., 3]
    apart = deviation(torch.stack([composited(one) for one in seen]))
    maps = to_bytes(heat(apart, TOP))
    means = [_over(d, o) for d, o in zip(apart, opacity, strict=True)]
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


def composited(rgba: torch.Tensor) -> torch.Tensor:
    """Pictures [N, H, W, 4] in [0, 1] on white: [N, H, W, 3]."""
    return rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]


def _over(apart: torch.Tensor, opacity: torch.Tensor) -> float:
    """Mean of how far pictures are apart, [H, W], over the person."""
    inside = np.asarray(opacity) > 0.5
    return float(np.asarray(apart)[inside].mean()) if inside.any() else 0.0
