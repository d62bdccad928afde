"""Expressions typed by people and recorded by face-capture apps."""

import math
import os

import pytest

from runtime.errors import UserError
from studio.looks.arkit_shapes import NAMES, gaze_angles
from triavatar.rig.expression import parse_expression, read_clip


def test_all_arkit_names_are_known():
    assert len(NAMES) == 52 and len(set(NAMES)) == 52
    for name in ("jawOpen", "eyeBlinkLeft", "mouthSmileRight", "tongueOut", "cheekPuff"):
        assert name in NAMES


def test_typed_expressions():
    face = parse_expression("jawOpen=0.6, eyeblinkleft, headYaw=-15")
    assert face.weights == {"jawOpen": 0.6, "eyeBlinkLeft": 1.0} and face.yaw == -15
    assert not face.rests and parse_expression("").rests and parse_expression("jawOpen=0").rests


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("jawOpne=1", "did you mean jawOpen"),
        ("jawOpen=2", "jawOpen is 2; it must be from 0 to 1"),
        ("headYaw=nan", "headYaw is nan"),
        ("jawOpen=wide", "must be a number"),
    ],
)
def test_wrong_expressions_are_refused(text, words):
    with pytest.raises(UserError, match=words):
        parse_expression(text)


def test_eyes_look_to_their_own_sides():
    """The left eye's "out" and the right eye's "in" both look to the subject's left."""
    left, right = (
        gaze_angles({"eyeLookOutLeft": 1}, "Left"),
        gaze_angles({"eyeLookInRight": 1}, "Right"),
    )
    assert left == right and left[0] > 0
    assert gaze_angles({"eyeLookDownLeft": 1}, "Left")[1] < 0


def test_clips_of_live_link_face(tmp_path):
    """Column order of the app's own files: time code, count, shapes with capitals, radians."""
    clip = tmp_path / "clip.csv"
    clip.write_text(
        "Timecode,BlendshapeCount,EyeBlinkLeft,JawOpen,HeadYaw,LeftEyeYaw\n"
        "00:00:01:02,61,0.25,1.4,0.5,0.1\n00:00:01:03,61,0,-0.1,0,0\n"
    )
    first, second = read_clip(clip)
    assert first.weights == {"eyeBlinkLeft": 0.25, "jawOpen": 1.0}
    assert first.yaw == pytest.approx(math.degrees(0.5)) and second.rests


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no frames"),
        ("jawOpen\n", "no frames"),
        ("jawOpen,smell\n0,0\n", "unknown column 'smell'"),
        ("Timecode,headYaw\n0,0\n", "no column with an ARKit name"),
        ("jawOpen\nwide\n", "line 2"),
        ("jawOpen,eyeBlinkLeft\n1\n", "line 2"),
        ("jawOpen\ninf\n", "not finite"),
        ("jawOpen\n" + "0" * 200_000, "no table"),
        ("\0" * 50, "clip"),
    ],
)
def test_wrong_clips_are_refused(tmp_path, text, words):
    clip = tmp_path / "clip.csv"
    clip.write_text(text)
    with pytest.raises(UserError, match=words):
        read_clip(clip)
    with pytest.raises(UserError, match="does not exist"):
        read_clip(tmp_path / "none.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(UserError, match="pipe"):
        read_clip(tmp_path / "pipe.csv")
