"""Expression, head pose and gaze as parameters.

Expressions are weights of the assets' expression units; the standard 52 ARKit names are mapped to
them where a unit does the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from runtime.errors import UserError
from studio.assets import AssetFolder

# ARKit blend shape → {unit: weight}. Shapes without a matching unit are absent: the tongue, jaw
# sideways and forward, cheek puff, and eye looks, which `Pose.gaze_yaw` and `gaze_pitch` set.
ARKIT = {
    "browDownLeft": {"eyebrows-left-down": 1.0},
    "browDownRight": {"eyebrows-right-down": 1.0},
    "browInnerUp": {"eyebrows-left-inner-up": 1.0, "eyebrows-right-inner-up": 1.0},
    "browOuterUpLeft": {"eyebrows-left-extern-up": 1.0},
    "browOuterUpRight": {"eyebrows-right-extern-up": 1.0},
    "eyeBlinkLeft": {"eye-left-closure": 1.0},
    "eyeBlinkRight": {"eye-right-closure": 1.0},
    "eyeSquintLeft": {"eye-left-slit": 1.0},
    "eyeSquintRight": {"eye-right-slit": 1.0},
    "eyeWideLeft": {"eye-left-opened-up": 1.0},
    "eyeWideRight": {"eye-right-opened-up": 1.0},
    "jawOpen": {"mouth-open": 1.0},
    "mouthClose": {"mouth-compression": 0.6},
    "mouthFunnel": {"mouth-eversion": 1.0},
    "mouthPucker": {"mouth-pursing": 1.0},
    "mouthRollLower": {"mouth-compression": 0.5},
    "mouthRollUpper": {"mouth-compression": 0.5},
    "mouthShrugUpper": {"mouth-elevation": 1.0},
    "mouthShrugLower": {"mouth-protusion": 0.6},
    "mouthStretchLeft": {"mouth-retraction": 0.5},
    "mouthStretchRight": {"mouth-retraction": 0.5},
    "mouthSmileLeft": {"mouth-corner-puller": 0.5},
    "mouthSmileRight": {"mouth-corner-puller": 0.5},
    "mouthFrownLeft": {"mouth-depression": 0.5},
    "mouthFrownRight": {"mouth-depression": 0.5},
    "mouthUpperUpLeft": {"mouth-upward-retraction": 0.5},
    "mouthUpperUpRight": {"mouth-upward-retraction": 0.5},
    "mouthLowerDownLeft": {"mouth-depression-retraction": 0.5},
    "mouthLowerDownRight": {"mouth-depression-retraction": 0.5},
    "mouthPressLeft": {"mouth-compression": 0.5},
    "mouthPressRight": {"mouth-compression": 0.5},
    "noseSneerLeft": {"nose-left-elevation": 1.0},
    "noseSneerRight": {"nose-right-elevation": 1.0},
}


def _both(**units: float) -> dict[str, float]:
    """Units by name with "_" for "-"; "SIDE" stands for left and right."""
    out = {}
    for name, weight in units.items():
        for side in ("left", "right") if "SIDE" in name else ("",):
            out[name.replace("SIDE", side).replace("_", "-")] = weight
    return out


# Takes back the resting face's friendliness.
_CALM = {
    "mouth_corner_puller": 0.0,
    "eyebrows_SIDE_up": 0.0,
    "eyebrows_SIDE_inner_up": 0.0,
    "eye_SIDE_opened_up": 0.0,
}

EXPRESSIONS = {
    "resting": {},
    "smile": _both(mouth_corner_puller=0.85, eye_SIDE_slit=0.2, eyebrows_SIDE_up=0.2),
    "laugh": _both(
        mouth_corner_puller=0.75, mouth_upward_retraction=0.4, mouth_open=0.1, eye_SIDE_slit=0.3
    ),
    "surprise": _both(
        eyebrows_SIDE_up=0.5,
        eyebrows_SIDE_inner_up=0.65,
        eye_SIDE_opened_up=0.6,
        mouth_open=0.36,
        mouth_pursing=0.3,
        mouth_corner_puller=0.0,
    ),
    "anger": _both(
        eyebrows_SIDE_down=0.8,
        eye_SIDE_slit=0.25,
        mouth_compression=0.35,
        nose_compression=0.5,
        **_CALM,
    ),
    "sadness": _both(
        eyebrows_SIDE_inner_up=0.7,
        eyebrows_SIDE_up=0.0,
        mouth_depression=0.35,
        eye_SIDE_slit=0.25,
        mouth_corner_puller=0.0,
    ),
    "disgust": _both(
        nose_SIDE_elevation=0.8,
        nose_compression=0.6,
        mouth_upward_retraction=0.5,
        eyebrows_SIDE_down=0.4,
        **_CALM,
    ),
    "speaking": _both(
        mouth_open=0.22, mouth_eversion=0.2, mouth_corner_puller=0.2, eyebrows_SIDE_up=0.2
    ),
    "kiss": _both(mouth_pursing=0.5, mouth_protusion=0.2, mouth_compression=0.4),
    "closed eyes": _both(eye_SIDE_closure=0.95),
}


@dataclass
class Pose:
    """Expression, head rotation and gaze.

    Args:
        name: a word for the expression.
        expression: unit (or ARKit name) → weight; replaces the resting face's units it names.
        yaw, pitch, roll: head rotation in degrees: to the subject's left, up, towards the
            subject's right shoulder.
        gaze_yaw, gaze_pitch: eyes against the head, degrees: to the subject's left, up.
    """

    name: str = "resting"
    expression: dict[str, float] = field(default_factory=dict)
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    gaze_yaw: float = 0.0
    gaze_pitch: float = 0.0


def sample_pose(rng: np.random.Generator) -> Pose:
    """A random expression with a small head rotation and gaze."""
    name = list(EXPRESSIONS)[int(rng.integers(len(EXPRESSIONS)))]
    strength = float(rng.uniform(0.6, 1.0))
    yaw, pitch, roll, gaze_yaw, gaze_pitch = rng.uniform(-1, 1, 5) * [22, 12, 8, 14, 8]
    return Pose(
        name,
        {unit: weight * strength for unit, weight in EXPRESSIONS[name].items()},
        *map(float, (yaw, pitch, roll, gaze_yaw, gaze_pitch)),
    )


def expression_units(assets: AssetFolder, expression: dict[str, float]) -> dict[str, float]:
    """Unit → weight in 0..1 from unit or ARKit names.

    Raises:
        UserError: a name is neither.
    """
    known = {name.split("/")[-1] for name in assets.target_names("expression/units/caucasian")}
    out: dict[str, float] = {}
    for name, weight in expression.items():
        if name not in known and name not in ARKIT:
            raise UserError(
                f"unknown expression unit '{name}'; known are {', '.join(sorted(known))} and the "
                "ARKit names in studio/looks/pose.py"
            )
        for unit, share in ({name: 1.0} if name in known else ARKIT[name]).items():
            out[unit] = min(out.get(unit, 0.0) + weight * share, 1.0)
    return out


def softened(units: dict[str, float], age: float) -> dict[str, float]:
    """Units for a child: the targets' offsets are an adult's, too much for a small mouth."""
    share = float(np.interp(age, [5, 16], [0.6, 1.0]))
    return {k: w * (share if k.startswith(("mouth", "nose")) else 1.0) for k, w in units.items()}


def rotation_matrix(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """[3, 3] of degrees: yaw about +y, pitch lifts +z, roll turns +y towards -x."""
    y, p, r = (math.radians(v) for v in (yaw, -pitch, roll))
    about_y = np.array([[math.cos(y), 0, math.sin(y)], [0, 1, 0], [-math.sin(y), 0, math.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, math.cos(p), -math.sin(p)], [0, math.sin(p), math.cos(p)]])
    about_z = np.array([[math.cos(r), -math.sin(r), 0], [math.sin(r), math.cos(r), 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def turn_head(points: np.ndarray, share: np.ndarray, pivot: np.ndarray, pose: Pose) -> np.ndarray:
    """Rotate `points` [V, 3] about `pivot` by `share` [V] of the pose's head rotation."""
    full = rotation_matrix(pose.yaw, pose.pitch, pose.roll)
    angle = math.acos(min(max((np.trace(full) - 1) / 2, -1.0), 1.0))
    if angle < 1e-6:
        return points
    axis = np.array([full[2, 1] - full[1, 2], full[0, 2] - full[2, 0], full[1, 0] - full[0, 1]])
    axis /= np.linalg.norm(axis)
    # Rodrigues' formula with an angle per point.
    local = points - pivot
    a = (share * angle)[:, None]
    along = (local @ axis)[:, None] * axis
    return pivot + local * np.cos(a) + np.cross(axis, local) * np.sin(a) + along * (1 - np.cos(a))
