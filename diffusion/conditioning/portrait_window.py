"""The part of the plane z = 0 that portraits show, for conditioning that is aligned to pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from captures.multiview import MultiViewSet

MEASURED = 32
"""Portraits whose cameras are read, at most: a set frames its portraits alike."""


def portrait_window(views: MultiViewSet, names: Sequence[str]) -> list[float]:
    """Return left, bottom, right, top of the portraits' frame on the plane z = 0.

    The mean over the portraits, in units of the box (its faces are at ±1), to 4 digits. The rays
    through the middles of the picture's edges are followed to the plane.
    """
    step = max(1, len(names) // MEASURED)
    windows = []
    for name in names[::step][:MEASURED]:
        camera = views.portrait_camera(name)
        w, h = float(camera.width), float(camera.height)
        x = torch.tensor([0.0, w / 2, w, w / 2])
        y = torch.tensor([h / 2, h, h / 2, 0.0])
        origins, directions = camera.rays(torch.zeros(4, dtype=torch.long), x, y)
        hits = origins - directions * (origins[:, 2:] / directions[:, 2:])
        windows.append(torch.stack((hits[0, 0], hits[1, 1], hits[2, 0], hits[3, 1])))
    return [round(value, 4) for value in torch.stack(windows).mean(dim=0).tolist()]
