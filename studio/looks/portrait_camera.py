"""Cameras of random portraits: turned, tilted, near or far, framed as an aligner frames them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from captures.cameras import Cameras, look_at
from studio.looks.head_rig import DISTANCE, PORTRAIT_FOV

# The middle between the eyes, on which portraits are aligned, world units.
EYES = (0.0, 0.147, 0.4)
_SCALE = 1 / (2 * math.tan(math.radians(PORTRAIT_FOV / 2)) * (DISTANCE - EYES[2]))
# Where the frontal camera sees that point, in parts of the picture.
_PLACE = (0.5, 0.5 - EYES[1] * _SCALE)


@dataclass
class Framing:
    """How a portrait's camera differs from the set's frontal one.

    Args:
        yaw, pitch: of the camera around the head, degrees: to the subject's left, up.
        roll: of the picture, degrees, clockwise.
        distance: from the eyes, world units (the frontal camera's is 3.3).
        scale: size of the face relative to the frontal portrait's.
        shift: of the eyes' middle, in parts of the picture, right and down.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    distance: float = DISTANCE - EYES[2]
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)


def sample_framing(rng) -> Framing:
    """Up to 15° aside and up or down; from a selfie's distance to a long lens's."""
    aside, up = (float(v) for v in rng.uniform(-1, 1, 2))
    return Framing(
        yaw=15 * aside,
        pitch=15 * up * abs(up) ** 0.5,
        roll=float(max(-7, min(7, 2.2 * rng.standard_normal()))),
        distance=float(math.exp(rng.uniform(math.log(1.9), math.log(7.5)))),
        scale=float(max(0.86, min(1.16, 1 + 0.045 * rng.standard_normal()))),
        shift=tuple(float(max(-0.06, min(0.06, 0.018 * v))) for v in rng.standard_normal(2)),
    )


def portrait_camera(framing: Framing, size: int) -> Cameras:
    """The camera of a picture of `size` pixels."""
    yaw, pitch = math.radians(framing.yaw), math.radians(framing.pitch)
    eyes = torch.tensor(EYES, dtype=torch.float64)
    towards = torch.tensor(
        [math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch)],
        dtype=torch.float64,
    )
    c2w = look_at((eyes + framing.distance * towards)[None], eyes)
    turn = math.radians(framing.roll)
    about_axis = torch.eye(4, dtype=torch.float64)
    about_axis[:2, :2] = torch.tensor(
        [[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]
    )
    focal = torch.tensor([_SCALE * framing.distance * framing.scale * size], dtype=torch.float64)
    x, y = (torch.tensor([(p + s) * size]) for p, s in zip(_PLACE, framing.shift, strict=True))
    return Cameras(c2w @ about_axis, focal, focal.clone(), x, y, size, size)
