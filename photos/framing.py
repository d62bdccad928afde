"""Framing: where the face stands in a set's portraits, and how a photograph gets there."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from captures.multiview import MultiViewSet, composite_rgba, resize_rgba
from photos.faces import Face
from photos.geometry import turn_and_scale
from runtime.config import setting
from runtime.errors import UserError

MEASURED_SUBJECTS = 12
MEASURING_SIDE = 320


@dataclass(frozen=True)
class Framing:
    """Places in a square portrait, in parts of its side, y down.

    The defaults are what ``measure_framing`` finds in sets of the studio.
    """

    eyes: tuple[float, float] = (0.5, 0.413)
    """Middle between the eyes (x, y), in parts of the side."""
    eye_distance: float = setting(0.17, above=0)
    """Distance of the eyes' centres, in parts of the side."""
    face_width: float = setting(0.49, above=0)
    """Width of the frontal cascade's box round the face, in parts of the side."""
    left: float = 0.05
    """Where the bust is cut off on the left, in parts of the side."""
    right: float = 0.95
    """Where the bust is cut off on the right, in parts of the side."""
    bottom: float = 0.96
    """Where the bust is cut off below, in parts of the side."""

    def similarity(self, face: Face, side: int) -> np.ndarray:
        """Affine [2, 3] from the photograph's pixels to a portrait of ``side`` pixels."""
        scale = side * self.eye_distance / math.dist(*face.eyes)
        if face.has_box:
            # Eyes found by cascades are a few per cent off, and so is the box: their mean is less.
            scale = math.sqrt(scale * side * self.face_width / face.width)
        x, y = face.eyes.mean(0)
        target = (self.eyes[0] * side, self.eyes[1] * side)
        return turn_and_scale((x, y), face.roll, scale, target)


def measure_framing(views: MultiViewSet, detect: Callable[[np.ndarray], list[Face]]) -> Framing:
    """The framing of a set's frontal pictures: medians over up to 12 of its subjects.

    Args:
        views: the set.
        detect: photograph uint8 [H, W, 3] to faces.

    Raises:
        UserError: no face is found in any of its portraits.
    """
    step = max(1, len(views.names) // MEASURED_SUBJECTS)
    rows = []
    for name in views.names[::step][:MEASURED_SUBJECTS]:
        rgba = np.array(resize_rgba(Image.fromarray(views.portrait(name)), MEASURING_SIDE))
        grey = composite_rgba(torch.from_numpy(rgba), 0.6).numpy()
        rgb = (grey * 255 + 0.5).astype(np.uint8)
        faces = detect(rgb)
        if not faces:
            continue
        eyes = faces[0].eyes
        y, x = np.nonzero(rgba[..., 3] > 127)
        rows.append(
            [*eyes.mean(0), math.dist(*eyes), faces[0].width, x.min(), x.max() + 1, y.max() + 1]
        )
    if not rows:
        raise UserError(
            f"no face is found in the portraits (frame 0) of {views.root}; leave the set out to "
            "take the studio's framing."
        )
    x, y, *rest = (float(v) for v in np.median(rows, axis=0) / MEASURING_SIDE)
    return Framing((x, y), *rest)
