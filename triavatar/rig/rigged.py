"""A registered head that takes expressions, poses and gazes.

Legend: P points, J bones.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import cached_property

import numpy as np

from studio.looks.arkit_shapes import gaze_angles
from studio.looks.pose import Pose, rotation_matrix, turn_head
from triavatar.rig.expression import Expression
from triavatar.rig.head_model import JOINTS, PARTS, HeadModel
from triavatar.rig.register import Registered

BONES = ("body", "neck", "head", "jaw", "rightEye", "leftEye")
PARENTS = (-1, 0, 1, 2, 2, 2)
LID = 1.05
"""Distance of a closed lid from the eyeball's centre, in its radii."""
USUAL_EYE = np.array([[0.27, 0.17, 0.11], [0.86, 0.83, 0.81]], dtype=np.float32)
"""Colours of iris and white, sRGB."""


@dataclass(frozen=True)
class RiggedHead:
    """A head of the model's topology that moves.

    Attributes:
        model: topology and blend shapes.
        registered: its shape at rest.
        eyes: colours of iris and white of the right and the left eye, sRGB, [2, 2, 3].
    """

    model: HeadModel
    registered: Registered
    eyes: np.ndarray = dataclass_field(default_factory=lambda: np.stack([USUAL_EYE, USUAL_EYE]))

    @cached_property
    def points(self) -> np.ndarray:
        """All points at rest, world units, [P, 3]."""
        return self.model.points(self.registered.skin, self.registered.boxes)

    @cached_property
    def lid_scale(self) -> dict[str, float]:
        """How far this head's eyes are open, against the average's, by side."""
        names = list(self.model.config.landmarks)
        out = {}
        for side in ("Left", "Right"):
            pair = [names.index(f"{side.lower()} {which} lid") for which in ("upper", "lower")]
            rows = self.model.landmark_points[pair]
            own = self.registered.skin[rows, 1]
            usual = self.model.mean[rows, 1]
            out[side] = float(np.clip((own[0] - own[1]) / (usual[0] - usual[1]), 0.5, 1.6))
        return out

    def shape(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Points [m] that a blend shape moves on this head, and their offsets [m, 3].

        Lids go as far down as this head's eyes are open; looking eyes turn about their own centres.
        """
        rows, offset = self.model.shape(name)
        if name.startswith("eyeBlink"):
            side = name.removeprefix("eyeBlink")
            offset = self._over_eyeball(rows, offset * self.lid_scale[side], side)
        if name.startswith("eyeLook"):
            side = "Left" if name.endswith("Left") else "Right"
            ball = self.inner_points(f"{side.lower()} eye")
            centre = self.registered.boxes[PARTS.index(f"{side.lower()} eye") - 1, 0]
            turn = rotation_matrix(*gaze_angles({name: 1.0}, side), 0.0)
            local = self.points[ball] - centre
            lids = ~np.isin(rows, ball)
            rows = np.concatenate([rows[lids], ball])
            offset = np.concatenate([offset[lids], local @ turn.T - local])
        return rows, offset.astype(np.float32)

    def _over_eyeball(self, rows: np.ndarray, offset: np.ndarray, side: str) -> np.ndarray:
        """Offsets [m, 3] after which no lid lies within the eyeball."""
        centre, half = self.registered.boxes[PARTS.index(f"{side.lower()} eye") - 1]
        away = self.points[rows] + offset - centre
        distance = np.linalg.norm(away, axis=1, keepdims=True)
        before = np.linalg.norm(self.points[rows] - centre, axis=1, keepdims=True)
        # What lies behind a lid stays behind it.
        least = np.minimum(LID * half[0], np.maximum(before, distance) + 0.01)
        return offset + away * (np.maximum(least / distance, 1) - 1)

    def inner_points(self, part: str) -> np.ndarray:
        """Points of one of PARTS[1:]."""
        return len(self.model.mean) + np.flatnonzero(self.model.inner == PARTS.index(part) - 1)

    def expressed(self, expression: Expression) -> np.ndarray:
        """Points [P, 3] with blend shapes and gaze, before the head turns."""
        out = self.points.astype(np.float64)
        for name, weight in expression.weights.items():
            if weight and not name.startswith("eyeLook"):
                rows, offset = self.shape(name)
                out[rows] += weight * offset
        for side in ("Left", "Right"):
            self._turn_eye(out, expression, side)
        return out

    def _turn_eye(self, points: np.ndarray, expression: Expression, side: str) -> None:
        """Turn one eyeball in place, by weights and degrees; the lids follow the weights."""
        for way in ("Up", "Down"):
            name = f"eyeLook{way}{side}"
            if weight := expression.weights.get(name, 0.0):
                rows, offset = self.model.shape(name)
                lids = rows < len(self.model.mean)
                points[rows[lids]] += weight * offset[lids]
        turn = self.eye_turn(expression, side)
        if turn is not None:
            ball = self.inner_points(f"{side.lower()} eye")
            centre = self.registered.boxes[PARTS.index(f"{side.lower()} eye") - 1, 0]
            points[ball] = (points[ball] - centre) @ turn.T + centre

    def eye_turn(self, expression: Expression, side: str) -> np.ndarray | None:
        """Rotation [3, 3] of an eye against the head; None when it looks ahead."""
        yaw, pitch = gaze_angles(dict(expression.weights), side)
        yaw, pitch = yaw + expression.gaze_yaw, pitch + expression.gaze_pitch
        return rotation_matrix(yaw, pitch, 0.0) if yaw or pitch else None

    def turned(self, points: np.ndarray, share: np.ndarray, expression: Expression) -> np.ndarray:
        """Points [n, 3] after the head's turn, of which they follow a share [n]."""
        return turn_head(points, share, self.neck, head_pose(expression))

    @property
    def neck(self) -> np.ndarray:
        """Where the head turns, [3]."""
        return self.registered.joints[JOINTS.index("neck")]

    def bone_places(self) -> np.ndarray:
        """Where the bones begin, in the order of BONES, [J, 3]."""
        neck, head, jaw, right, left = self.registered.joints
        body = neck - [0.0, 0.2, 0.0]
        right, left = self.registered.boxes[3, 0], self.registered.boxes[4, 0]
        return np.stack([body, neck, head, jaw, right, left])

    def bone_weights(self) -> np.ndarray:
        """How far every point follows each bone, [P, J]; rows sum to one."""
        share, jaw = self.model.head_share, self.model.jaw_share
        out = np.zeros((len(share), len(BONES)))
        # Half of the turn is the neck's: its points follow body and neck, then neck and head.
        out[:, :3] = turn_weights(share)
        out[:, 3] = out[:, 2] * jaw
        out[:, 2] *= 1 - jaw
        for bone, part in ((4, "right eye"), (5, "left eye")):
            rows = self.inner_points(part)
            out[rows] = np.eye(len(BONES))[bone]
        return out


def turn_weights(share: np.ndarray) -> np.ndarray:
    """Weights of body, neck and head, [n, 3], for shares [n] of the head's turn."""
    body, head = np.clip(1 - 2 * share, 0, 1), np.clip(2 * share - 1, 0, 1)
    return np.stack([body, 1 - body - head, head], axis=1)


def head_pose(expression: Expression) -> Pose:
    """The head's turn as the studio knows it."""
    return Pose(yaw=expression.yaw, pitch=expression.pitch, roll=expression.roll)
