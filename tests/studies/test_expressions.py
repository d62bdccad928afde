"""Measures of faces that move, against surfaces and pictures whose differences are known."""

import numpy as np
import pytest

from runtime.errors import UserError
from studies.expression_measures import (
    markdown,
    mean_of,
    picture_measures,
    registration_measures,
    surface_distance,
)
from studies.expressions import (
    StudyExpressionsConfig,
    cases,
    in_columns,
    study_expressions,
)
from triavatar.rig.head_model import MM_PER_UNIT, find_head_model


def test_distances_to_a_square():
    """Above it, beside its edge, beyond its corner; vertices lie far from where it is nearest."""
    pytest.importorskip("trimesh")
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [9, 9, 9]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    points = np.array([[0.5, 0.4, 0.25], [0.3, -0.5, 0.0], [-3.0, -4.0, 0.0], [1.0, 0.5, 0.0]])
    assert surface_distance(points, vertices, faces) == pytest.approx([0.25, 0.5, 5.0, 0.0])


def test_a_skin_pushed_aside():
    """By 2 mm: vertices are 2 mm away, the surface never more, and less where it slides along."""
    pytest.importorskip("trimesh")
    model = find_head_model()
    truth = model.skin(np.random.default_rng(1).normal(size=len(model.basis)))
    moved = registration_measures(model, truth + [0, 2 / MM_PER_UNIT, 0], truth)
    assert moved["vertices"] == pytest.approx(2) and moved["landmarks"] == pytest.approx(2)
    assert 0.3 < moved["face"] < 1.4
    same = registration_measures(model, truth, truth)
    assert same["face"] < 1e-6 and same["back"] < 1e-6 and same["average"] == moved["average"] > 1


def test_pictures_count_where_the_expression_shows():
    rest_truth, rest_avatar = np.full((4, 4, 3), 0.5), np.full((4, 4, 3), 0.6)
    truth, avatar = rest_truth.copy(), rest_avatar.copy()
    truth[0] = 0.9
    avatar[0] = 0.8
    found = picture_measures((rest_truth, rest_avatar), (truth, avatar))
    assert found["moved"] == pytest.approx(20) and found["moved_there"] == pytest.approx(20)
    assert found["still_there"] == pytest.approx(-20 * np.log10(0.3))
    same = picture_measures((rest_truth, rest_avatar), (rest_truth, rest_avatar))
    assert "moved_there" not in same and same["moved"] == same["still"]


def test_tables_are_means_over_people():
    rest = dict.fromkeys(("face", "landmarks"), 1.0)
    case = {"moved": 20.0, "still": 18.0, "moved_there": 16.0, "still_there": 12.0}
    other = {"moved": 30.0, "still": 18.0}
    people = [
        {"registration": rest, "smile": case},
        {"registration": {**rest, "face": 2.0}, "smile": other},
    ]
    assert mean_of([case, other])["moved_there"] == 16.0
    text = markdown(people)
    assert "(worst person 2.0) | 1.5 |" in text
    assert "| smile | 16.0 dB | 12.0 dB | 25.0 dB | 18.0 dB |" in text


def test_shapes_add_to_what_a_face_does_at_rest():
    pose, typed = cases({"mouth-corner-puller": 0.25})["smile"]
    assert pose.expression == {"mouth-corner-puller": 1.0}
    assert typed.weights == {"mouthSmileLeft": 0.75, "mouthSmileRight": 0.75}


def test_a_split_without_triplanes_is_refused(ball_set, tmp_path):
    config = StudyExpressionsConfig(*ball_set, tmp_path / "out", identities="validation")
    with pytest.raises(UserError, match="nobody in the split validation"):
        study_expressions(config)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def ball_set(tmp_path):
    """A multi-view set, and triplanes of somebody else."""
    from pathlib import Path

    from renderer.fitted_set import FittedSet
    from tests.triavatar.export.ball import ball_decoder, ball_planes

    planes = ball_planes(9)
    FittedSet.create(tmp_path / "fitted", ball_decoder(), tuple(planes.shape)).put("ball", planes)
    return Path("data/example"), tmp_path / "fitted"


def test_people_in_two_columns():
    people = [np.full((4, 6, 3), value, dtype=np.uint8) for value in (10, 20, 30)]
    sheet = in_columns(people)
    assert sheet.shape == (8, 28, 3)
    assert (sheet[0, 0, 0], sheet[4, 0, 0], sheet[0, 27, 0], sheet[4, 27, 0]) == (10, 20, 30, 255)
    assert in_columns(people[:1]).shape == (4, 6, 3)
