"""Lopsided heads of coloured balls: a set whose cameras, scale and pictures are known exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from captures.cameras import Cameras
from captures.conventions import CONVENTIONS
from captures.description import write_description
from captures.multiview import write_view
from studio.looks.head_rig import head_rig

# Centre, radius and colour; the bun stands on the subject's left only.
BALLS = [
    ((0.0, 0.2, 0.0), 0.45, "skin"),
    ((0.0, 0.14, 0.44), 0.11, "skin"),
    ((0.17, 0.28, 0.36), 0.1, "eyes"),
    ((-0.17, 0.28, 0.36), 0.1, "eyes"),
    ((0.0, 0.32, -0.12), 0.44, "hair"),
    ((0.36, 0.55, -0.2), 0.18, "hair"),
    ((0.42, -0.52, -0.05), 0.26, "clothes"),
    ((-0.42, -0.52, -0.05), 0.26, "clothes"),
    ((0.0, -0.46, 0.0), 0.34, "clothes"),
]
COLOURS = {
    "ada": {"skin": (0.9, 0.7, 0.6), "eyes": (0.2, 0.5, 0.9), "hair": (0.6, 0.3, 0.1)}
    | {"clothes": (0.3, 0.8, 0.4)},
    "ben": {"skin": (0.6, 0.45, 0.35), "eyes": (0.9, 0.9, 0.3), "hair": (0.85, 0.2, 0.3)}
    | {"clothes": (0.5, 0.6, 0.95)},
}
N_VIEWS = 14
TEST_VIEWS = [5, 10]


def paint(colours: dict[str, tuple], cameras: Cameras, index: int, stretch: float) -> np.ndarray:
    """RGBA uint8 [H, W, 4], straight alpha, 3×3 rays a pixel; ``stretch`` widens every ball."""
    size = cameras.width
    origins, directions = cameras.scaled_to(3 * size, 3 * size).image_rays(index)
    nearest = torch.full((len(origins),), torch.inf, dtype=origins.dtype)
    color = torch.zeros(len(origins), 3, dtype=origins.dtype)
    for centre, radius, part in BALLS:
        hit, distance = _meet(origins, directions, centre, radius * stretch)
        closer = hit & (distance < nearest)
        nearest = torch.where(closer, distance, nearest)
        color[closer] = torch.tensor(colours[part], dtype=color.dtype)
    alpha = nearest.isfinite().to(color.dtype)[:, None]
    layers = torch.cat([color * alpha, alpha], -1).view(size, 3, size, 3, 4).mean((1, 3))
    straight = layers[..., :3] / layers[..., 3:].clamp(min=1e-6)
    rgba = torch.cat([straight.clamp(0, 1), layers[..., 3:]], -1)
    return (rgba * 255 + 0.5).to(torch.uint8).numpy()


def _meet(origins: Tensor, directions: Tensor, centre: tuple, radius: float):
    offset = origins - torch.tensor(centre, dtype=origins.dtype)
    along = (offset * directions).sum(-1)
    inside = along**2 - (offset.square().sum(-1) - radius**2)
    return inside > 0, -along - inside.clamp(min=0).sqrt()


def write_heads(root: Path, size: int = 64) -> None:
    """Two subjects in the RodinHD convention, as the studio writes them."""
    cameras = head_rig(N_VIEWS, size)
    for name, stretch in zip(COLOURS, (1.0, 1.08), strict=True):
        for frame in range(N_VIEWS):
            picture = paint(COLOURS[name], cameras, frame, stretch)
            write_view(root / name, frame, picture, cameras, frame, CONVENTIONS["rodinhd"])
    write_description(
        root,
        CONVENTIONS["rodinhd"],
        identities={"train": list(COLOURS), "validation": [], "test": []},
        views={
            "train": [frame for frame in range(N_VIEWS) if frame not in TEST_VIEWS],
            "validation": [],
            "test": TEST_VIEWS,
        },
        objects={name: {"attributes": {"name": name}} for name in COLOURS},
        provenance={"seed": 0},
        license="CC0-1.0",
    )
