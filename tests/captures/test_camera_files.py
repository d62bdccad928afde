"""What dataset.json may say about cameras, axes and pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captures.camera_files import CameraFormat, StoredCamera, read_camera
from captures.conventions import CAMERA_AXES, Convention, camera_axes_matrix, name_camera_axes
from captures.multiview import MultiViewSet
from captures.rgba import PictureFormat
from runtime.errors import UserError
from tests.scenes import write_spheres


def stored(focal: float, matrix: np.ndarray | None = None) -> StoredCamera:
    return StoredCamera(200, 100, focal, 36.0, np.eye(4) if matrix is None else matrix)


@pytest.mark.parametrize(
    ("unit", "focal"),
    [
        ("sensor", 72.0),
        ("pixels", 400.0),
        ("widths", 2.0),
        ("half_widths", 4.0),
        ("radians", 2 * math.atan(0.25)),
        ("degrees", math.degrees(2 * math.atan(0.25))),
    ],
)
def test_focal_units(unit, focal):
    assert CameraFormat(focal_unit=unit).focal_widths(stored(focal)) == pytest.approx(2.0)
    halved = CameraFormat(focal_unit=unit, focal_factor=0.5)
    assert halved.focal_widths(stored(focal)) == pytest.approx(1.0)


def test_a_number_that_is_no_focal_length_is_not_a_number():
    assert math.isnan(CameraFormat().focal_widths(stored(-3.0)))
    assert math.isnan(CameraFormat(focal_unit="degrees").focal_widths(stored(190.0)))


def test_every_kind_of_matrix_gives_the_same_camera():
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0]
    c2w = np.eye(4)
    c2w[:3, :3] = rotation.numpy() * np.sign(np.linalg.det(rotation.numpy()))
    c2w[:3, 3] = (1.0, -2.0, 3.0)
    kinds = {"c2w": c2w, "w2c": np.linalg.inv(c2w)}
    kinds |= {f"{kind}_transposed": matrix.T for kind, matrix in kinds.items()}
    for kind, matrix in kinds.items():
        assert np.allclose(CameraFormat(matrix=kind).c2w(matrix), c2w), kind
    grown = c2w @ np.diag([2.5, 2.5, 2.5, 1.0])  # an exporter's scaled camera object
    assert np.allclose(CameraFormat().c2w(grown), c2w)


@pytest.mark.parametrize(
    "wrong",
    [{"matrix": "c2v"}, {"focal_unit": "inches"}, {"focal_factor": 0}, {"resolution": "none"}],
)
def test_unknown_formats_are_refused(wrong):
    with pytest.raises(UserError, match=f"cameras.{next(iter(wrong))} is"):
        CameraFormat(**wrong)


def test_camera_axes_by_name_and_by_words():
    for name in CAMERA_AXES:
        matrix = camera_axes_matrix(name)
        assert abs(np.linalg.det(matrix)) == pytest.approx(1)
        assert (camera_axes_matrix(name_camera_axes(matrix)) == matrix).all()
    # A file camera whose x looks forward, y left and z up (robotics).
    matrix = camera_axes_matrix("forward left up")
    assert matrix[:, 0].tolist() == [0, 0, 1] and matrix[:, 2].tolist() == [0, -1, 0]
    for wrong in ("up up left", "right down", "north east up", "right left up"):
        with pytest.raises(UserError, match="camera axes"):
            camera_axes_matrix(wrong)


def test_conversion_with_axes_that_are_not_their_own_inverse():
    """The file camera's x axis, pointing forward, becomes the third column."""
    convention = Convention(np.eye(4), "forward left up")
    house = convention.to_house(np.eye(4))
    assert house[:3, 2].tolist() == [1, 0, 0]
    assert house[:3, 1].tolist() == [0, 0, -1]
    assert np.allclose(convention.from_house(house), np.eye(4))


def test_a_left_handed_world_becomes_a_right_handed_one():
    """Unity: x right, y up, z forward; a camera on -z looks along +z at a face that looks to -z."""
    convention = Convention(np.diag([1.0, 1.0, -1.0, 1.0]), "unity")
    c2w = np.eye(4)
    c2w[2, 3] = -4.0
    house = convention.to_house(c2w)
    assert house[:3, 3].tolist() == [0, 0, 4]
    assert house[:3, 2].tolist() == [0, 0, -1]  # forward
    assert house[:3, 1].tolist() == [0, -1, 0]  # down
    assert house[:3, 0].tolist() == [1, 0, 0]  # right, as seen from the front
    assert np.linalg.det(house[:3, :3]) == pytest.approx(1)
    assert np.allclose(convention.from_house(house), c2w)


@pytest.fixture
def spheres(tmp_path) -> Path:
    return write_spheres(tmp_path / "set", subjects=2, views=4)


def describe(root: Path, **parts) -> None:
    path = root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **parts, "version": 2}))


def test_excluded_views_and_subjects(spheres):
    describe(spheres, objects={"subject_000": {"exclude": [1]}, "subject_001": {"exclude": "all"}})
    data = MultiViewSet(spheres)
    assert data.names == ["subject_000"] and data.split("test") == []
    assert data.frames("subject_000") == [0, 2, 3]
    assert data.split_views("train", "subject_000") == [0, 2]


def test_a_matte_is_taken_out(tmp_path):
    straight = np.array([[[200, 100, 40, 128], [10, 250, 90, 255]]], np.uint8)
    alpha = straight[..., 3:] / 255
    for matte in ((0, 0, 0), (255, 255, 255), (0, 255, 0)):
        blended = straight[..., :3] * alpha + (1 - alpha) * np.array(matte)
        rgba = np.concatenate([blended.round(), straight[..., 3:]], -1).astype(np.uint8)
        Image.fromarray(rgba, "RGBA").save(tmp_path / "picture.png")
        read = np.asarray(PictureFormat(matte=matte).read(tmp_path / "picture.png"))
        assert np.abs(read.astype(int) - straight).max() <= 1
    with pytest.raises(UserError, match="matte"):
        PictureFormat(matte=(0, 0, 300))


def test_settings_nobody_knows_are_refused(spheres):
    describe(spheres, cameras={"focal_unit": "pixels", "fov": 3})
    with pytest.raises(UserError, match="cameras.fov is no setting"):
        MultiViewSet(spheres)
    describe(spheres, cameras=[])
    with pytest.raises(UserError, match=r"cameras is \[\] but must be"):
        MultiViewSet(spheres)


def test_mirrored_and_stretched_cameras_are_refused(spheres):
    path = spheres / "subject_000" / "metadata_000001.json"
    content = json.loads(path.read_text())
    good = np.array(content["cameras"][0]["transformation"])
    for wrong in (np.diag([-1.0, 1, 1, 1]), np.diag([2.0, 1, 1, 1])):
        content["cameras"][0]["transformation"] = (good @ wrong).tolist()
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match="no rotation .* triavatar doctor"):
            MultiViewSet(spheres).load("subject_000")


def test_a_matrix_of_three_rows_is_completed(tmp_path):
    entry = {"resolution": [8, 8], "focal_length": 1, "sensor_width": 1}
    entry["transformation"] = np.eye(4)[:3].tolist()
    (tmp_path / "m.json").write_text(json.dumps({"cameras": [entry]}))
    assert (read_camera(tmp_path / "m.json").transformation == np.eye(4)).all()
