"""What the rig draws itself: teeth, tongue, the mouth's inside, turned eyes.

Legend: K samples.
"""

from __future__ import annotations

import numpy as np

from triavatar.export.raster import Seen
from triavatar.rig.expression import Expression
from triavatar.rig.head_model import PARTS
from triavatar.rig.moving import MovingAvatar

CAVITY = np.array([0.32, 0.13, 0.12], dtype=np.float32)
"""sRGB of the mouth's inside, before the dark."""
DARK = 0.16
"""World units behind the lips at which what lies inside has lost most of its light."""
IRIS, PUPIL = 0.5, 0.17
"""Angles from the eye's axis at which iris and pupil end, radians."""


def inside_colors(
    moving: MovingAvatar, posed: np.ndarray, seen: Seen, shown: np.ndarray, expression: Expression
) -> np.ndarray:
    """Colours [K, 3] of the samples ``shown`` [h, w] (bool), row by row."""
    face = seen.face[shown]
    weights = seen.weights[shown]
    corners = moving.faces[face]
    points = np.einsum("rk,rkc->rc", weights, posed[corners])
    part = moving.part[face]
    model = moving.head.model
    painted = np.concatenate(
        [np.tile(CAVITY, (len(model.mean), 1)), model.colors.astype(np.float32) / 255]
    )
    safe = np.where(corners < len(painted), corners, 0)
    colors = np.einsum("rk,rkc->rc", weights, painted[safe]).astype(np.float32)
    names = list(model.config.landmarks)
    lips = posed[model.landmark_points[[names.index("upper lip"), names.index("lower lip")]]]
    depth = np.maximum(lips[:, 2].max() - 0.02 - points[:, 2], 0)
    gap = np.linalg.norm(lips[0] - lips[1])
    light = np.exp(-((depth / DARK) ** 2)) * np.clip(0.35 + 8 * gap, 0, 1)
    out = colors * (0.12 + 0.88 * light[:, None]).astype(np.float32)
    for side in ("Right", "Left"):
        index = PARTS.index(f"{side.lower()} eye")
        rows = part == index
        if rows.any():
            out[rows] = _eye(moving, posed, points[rows], expression, side)
    return out


def _eye(moving, posed, points, expression: Expression, side: str) -> np.ndarray:
    """Colours of points on an eyeball: iris and pupil about its axis."""
    head = moving.head
    index = PARTS.index(f"{side.lower()} eye") - 1
    ball = head.inner_points(f"{side.lower()} eye")
    centre = 0.5 * (posed[ball].min(axis=0) + posed[ball].max(axis=0))
    # The first point of an eyeball is its pole.
    axis = posed[ball[0]] - centre
    axis /= np.linalg.norm(axis)
    way = points - centre
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    return lid_shadow(way) * eye_colors(np.arccos(np.clip(way @ axis, -1, 1)), head.eyes[index - 3])


def lid_shadow(way: np.ndarray) -> np.ndarray:
    """Share of light [K, 1] that lids and lashes leave to an eye's upper half.

    Args:
        way: unit vectors from the eyeball's centre, [K, 3].
    """
    return 1 - 0.45 * np.clip(way[:, 1:2] / 0.45, 0, 1).astype(np.float32)


def eye_colors(angle: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """Colours [K, 3] at angles [K] from the axis of an eye with this iris and white, [2, 3]."""
    white = np.clip((angle - IRIS) / 0.05, 0, 1)[:, None]
    black = np.clip((PUPIL - angle) / 0.05 + 0.5, 0, 1)[:, None]
    ring = np.clip(1 - 0.45 * np.clip((angle - IRIS + 0.1) / 0.1, 0, 1), 0, 1)[:, None]
    # The lids' shadow makes an eye's white darker towards its corners.
    shade = 1 - 0.3 * np.clip((angle - 0.6) / 0.6, 0, 1)[:, None]
    color = eye[0] * ring * (1 - white) + eye[1] * shade * white
    return (color * (1 - black) + 0.03 * black).astype(np.float32)
