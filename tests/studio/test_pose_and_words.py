"""Head pose, expression names, words."""

import numpy as np
import pytest

from runtime.errors import UserError
from studio.looks.pose import ARKIT, EXPRESSIONS, Pose, expression_units, rotation_matrix, turn_head
from studio.people.body import Shape
from studio.people.subject import Subject
from studio.people.words import labels, sentence

UNITS = ("mouth-open", "mouth-corner-puller", "eye-left-closure")


class FewUnits:
    def target_names(self, folder):
        return [f"{folder}/{name}" for name in UNITS]


def test_head_turns_left_up_and_to_the_right_shoulder():
    ahead, top = np.array([0.0, 0, 1]), np.array([0.0, 1, 0])
    assert (rotation_matrix(30, 0, 0) @ ahead)[0] == pytest.approx(0.5)  # subject's left is +x
    assert (rotation_matrix(0, 30, 0) @ ahead)[1] == pytest.approx(0.5)
    assert (rotation_matrix(0, 0, 30) @ top)[0] == pytest.approx(-0.5)
    full = rotation_matrix(20, -10, 5)
    assert np.allclose(full @ full.T, np.eye(3)) and np.linalg.det(full) == pytest.approx(1)


def test_points_follow_by_their_share():
    points = np.array([[0.1, 0.5, 0.3]] * 3)
    pose = Pose(yaw=25, pitch=10, roll=-4)
    pivot = np.array([0.0, -0.4, 0.0])
    turned = turn_head(points, np.array([0.0, 0.5, 1.0]), pivot, pose)
    full = rotation_matrix(25, 10, -4)
    assert np.allclose(turned[0], points[0])
    assert np.allclose(turned[2], full @ (points[2] - pivot) + pivot)
    half = turn_head(points, np.full(3, 0.5), pivot, pose)
    assert np.allclose(turn_head(half, np.full(3, 0.5), pivot, pose)[1], turned[2])
    assert np.allclose(turned[1], half[1])


def test_arkit_names_become_units_and_unknown_names_are_told():
    units = expression_units(
        FewUnits(), {"jawOpen": 0.5, "mouthSmileLeft": 1, "mouthSmileRight": 1}
    )
    assert units == {"mouth-open": 0.5, "mouth-corner-puller": 1.0}
    with pytest.raises(UserError, match="jawOpenn"):
        expression_units(FewUnits(), {"jawOpenn": 1.0})


@pytest.mark.assets
def test_every_named_unit_exists(assets):
    from studio.assets import AssetFolder

    folder = AssetFolder(assets)
    for expression in EXPRESSIONS.values():
        expression_units(folder, expression)
    for units in ARKIT.values():
        expression_units(folder, units)


def test_sentence_names_what_is_seen():
    subject = Subject(0, 0, Shape(age=66, gender=1.0), tone=0.05, hair="curls", beard="goatee")
    subject.glasses = "round"
    text = sentence(subject, Pose("smile"))
    assert text == (
        "An old man with very light skin, curly brown hair and brown eyes, a goatee, "
        "round glasses, wearing casual clothes; expression: smile."
    )
    assert labels(subject)["expression"] == "resting"
