"""Expressions: weights of the 52 ARKit blend shapes, head and neck pose, gaze; clips of them.

A clip is a CSV file as face-capture apps record them: a column for each blend shape by its ARKit
name (capitals don't matter), and the head's turn in ``HeadYaw``, ``HeadPitch``, ``HeadRoll``; one
row for each frame.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runtime.errors import UserError
from runtime.files import read_text
from studio.looks.arkit_shapes import NAMES

POSE = ("headYaw", "headPitch", "headRoll")
"""Degrees: to the subject's left, up, towards the subject's right shoulder."""
GAZE = ("gazeYaw", "gazePitch")
"""Degrees of both eyes against the head: to the subject's left, up."""
MOST_DEGREES = 60.0
_IGNORED = ("timecode", "blendshapecount", "time", "timestamp", "frame")
_EYES = tuple(f"{side}Eye{turn}" for side in ("left", "right") for turn in ("Yaw", "Pitch", "Roll"))
_KNOWN = {name.lower(): name for name in (*NAMES, *POSE, *GAZE)}


@dataclass(frozen=True)
class Expression:
    """One moment of a face.

    Attributes:
        weights: ARKit name → weight, 0 rest to 1 full; names that are absent rest.
        yaw, pitch, roll: turn of the head in degrees: to the subject's left, up, towards the
            subject's right shoulder. The neck takes its share.
        gaze_yaw, gaze_pitch: turn of both eyes against the head, in degrees, beside what the
            weights of ``eyeLook…`` say.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    gaze_yaw: float = 0.0
    gaze_pitch: float = 0.0

    @property
    def rests(self) -> bool:
        """Whether nothing moves."""
        turns = (self.yaw, self.pitch, self.roll, self.gaze_yaw, self.gaze_pitch)
        return not any(turns) and not any(self.weights.values())


def expression(values: Mapping[str, float]) -> Expression:
    """Make an expression of named values.

    Args:
        values: ARKit names with weights from 0 to 1; those of :data:`POSE` and :data:`GAZE` with
            degrees.

    Raises:
        UserError: a name is unknown, or a value impossible.
    """
    weights: dict[str, float] = {}
    turns: dict[str, float] = {}
    for given, value in values.items():
        name = _KNOWN.get(given.lower())
        if name is None:
            raise UserError(f"unknown blend shape '{given}'{_alike(given)}")
        most = MOST_DEGREES if name in POSE + GAZE else 1.0
        least = -most if name in POSE + GAZE else 0.0
        if not (math.isfinite(value) and least <= value <= most):
            raise UserError(f"{name} is {value:g}; it must be from {least:g} to {most:g}.")
        (turns if name in POSE + GAZE else weights)[name] = float(value)
    return Expression(weights, *(turns.get(name, 0.0) for name in POSE + GAZE))


def parse_expression(text: str) -> Expression:
    """Read ``jawOpen=0.6,eyeBlinkLeft=1,headYaw=15``; without a value a shape is full.

    Raises:
        UserError: a name is unknown, or a value no number or impossible.
    """
    values: dict[str, float] = {}
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, value = piece.partition("=")
        try:
            values[name.strip()] = float(value) if value else 1.0
        except ValueError:
            raise UserError(f"'{piece}': what follows = must be a number.") from None
    return expression(values)


def _alike(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name.lower(), _KNOWN, n=1, cutoff=0.5)
    hint = f"; did you mean {_KNOWN[close[0]]}?" if close else ";"
    return f"{hint} known are the 52 ARKit names, e.g. jawOpen, and {', '.join(POSE + GAZE)}."


def read_clip(path: Path) -> list[Expression]:
    """Read a CSV clip; weights are cut to 0..1, turns to what a neck can do.

    Columns named ``HeadYaw``, ``HeadPitch``, ``HeadRoll`` in radians (as Live Link Face writes
    them: all within ±π/2) become degrees.

    Raises:
        UserError: the file can't be read, or holds no blend shapes, other columns, or no numbers.
    """
    try:
        rows = [row for row in csv.reader(io.StringIO(read_text(path), newline="")) if row]
    except csv.Error:
        raise UserError(f"the clip {path} is no table of comma-separated values.") from None
    if len(rows) < 2:
        raise UserError(
            f"the clip {path} holds no frames; it needs a row of names and one a frame."
        )
    ignored = {*_IGNORED, *(name.lower() for name in _EYES)}
    columns = {}
    for at, title in enumerate(rows[0]):
        key = title.strip().lower()
        if key in _KNOWN:
            columns[at] = _KNOWN[key]
        elif key and key not in ignored:
            raise UserError(
                f"the clip {path}: unknown column '{title[:40]}'{_alike(title.strip())}"
            )
    if not set(columns.values()) & set(NAMES):
        raise UserError(f"the clip {path} has no column with an ARKit name, e.g. jawOpen.")
    return _frames(path, rows[1:], columns)


def _frames(path: Path, rows: list[list[str]], columns: Mapping[int, str]) -> list[Expression]:
    frames = []
    for line, row in enumerate(rows, start=2):
        try:
            values = {name: float(row[at]) for at, name in columns.items()}
        except (ValueError, IndexError):
            raise UserError(
                f"the clip {path}: line {line} is not a number in every column."
            ) from None
        if not all(map(math.isfinite, values.values())):
            raise UserError(f"the clip {path}: line {line} holds a number that is not finite.")
        frames.append(values)
    turns = [abs(values[name]) for values in frames for name in POSE if name in values]
    scale = 180 / math.pi if turns and max(turns) <= math.pi / 2 else 1.0
    out = []
    for values in frames:
        for name in values:
            if name in POSE:
                values[name] *= scale
            most = MOST_DEGREES if name in POSE + GAZE else 1.0
            values[name] = min(max(values[name], -most if most > 1 else 0.0), most)
        out.append(expression(values))
    return out
