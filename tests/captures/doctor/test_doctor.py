"""The doctor on clean sets, on planted faults, and on what its cures leave behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from captures.multiview import MultiViewSet
from tests.captures.doctor import faults, heads
from triavatar import cli

QUICK = ["--n_views", "11", "--size", "40", "--grid", "24", "--n_search", "1"]


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("heads") / "set"
    heads.write_heads(root)
    return root


@pytest.fixture
def planted(clean, tmp_path) -> Path:
    """A copy of the clean set to damage."""
    root = tmp_path / "set"
    shutil.copytree(clean, root)
    return root


def examine(root: Path, *flags: str) -> tuple[int, dict[str, Any]]:
    """Exit status and JSON report."""
    report = root.parent / "report.json"
    status = cli.main(["doctor", str(root), *QUICK, "--json", str(report), *flags])
    return status, json.loads(report.read_text())


def checks(findings: list[dict[str, Any]]) -> set[str]:
    return {finding["check"] for finding in findings}


def cameras(root: Path, name: str = "ada"):
    return MultiViewSet(root).load(name, size=64).cameras


def assert_same_cameras(root: Path, clean: Path) -> None:
    """All of the clean set's cameras come back, in house convention."""
    for name in heads.COLOURS:
        ours, theirs = cameras(root, name), cameras(clean, name)
        assert torch.allclose(ours.c2w, theirs.c2w, atol=1e-3)
        assert torch.allclose(ours.fx, theirs.fx, rtol=1e-4)


def test_a_freshly_made_set_is_clean(clean, capsys):
    before = {path: path.read_bytes() for path in clean.rglob("*") if path.is_file()}
    status, report = examine(clean)
    assert status == 0 and report["findings"] == [] and report["agreement"] > 0.98
    assert "nothing is wrong" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in clean.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "flags", [["--n_views", "9", "--n_carved", "4"], pytest.param([], marks=pytest.mark.slow)]
)
def test_the_example_is_clean(flags, project, tmp_path):
    report = tmp_path / "report.json"
    arguments = [str(project / "data/example"), "--json", str(report), *flags]
    assert cli.main(["doctor", *arguments]) == 0
    found = json.loads(report.read_text())
    assert found["clean"] and found["n_subjects"] == 10 and found["agreement"] > 0.96


# Faults after whose cure the set's cameras are those of the clean set: (fault, check, its cure).
CAMERA_FAULTS = [
    (faults.inverse_matrices, "camera-matrix", "world-to-camera"),
    (faults.transposed_matrices, "camera-matrix", "column by column"),
    (faults.opencv_axes, "camera-axes", 'as "opencv"'),
    (faults.rolled_axes, "camera-axes", 'as "down right back"'),
    (faults.left_handed, "handedness", 'left-handed with camera axes "unity"'),
    (faults.turned_world, "world-axes", "+y of the files is up and the subject looks along +z"),
    (faults.centimetres, "scale", "by 0.01: lengths are centimetres"),
    (faults.focal_in_pixels, "focal-unit", "as pixels"),
    (faults.focal_in_widths, "focal-unit", "as picture widths"),
    (faults.focal_as_angle, "focal-unit", "field of view in degrees"),
    (faults.no_description, "no-description", 'the convention "rodinhd"'),
]


@pytest.mark.parametrize(
    ("plant", "check", "cure"), CAMERA_FAULTS, ids=lambda value: getattr(value, "__name__", "")
)
def test_camera_faults_are_found_and_cured(plant, check, cure, planted, clean):
    plant(planted)
    status, report = examine(planted, "--fix")
    assert checks(report["cured"]) == {check}
    assert cure in report["cured"][0]["cure"]
    assert status == 0 and report["findings"] == []
    assert_same_cameras(planted, clean)


# Faults of single files, which the cure leaves out: (fault, check, (subject, frame)).
FILE_FAULTS = [
    (faults.duplicate_view, "duplicate-view", "ada", 7),
    (faults.missing_view, "missing-file", "ada", 6),
    (faults.missing_camera, "missing-file", "ada", 6),
    (faults.missing_portrait, "missing-file", "ben", None),
    (faults.duplicate_subject, "duplicate-subject", "ben", None),
    (faults.truncated_picture, "unreadable-picture", "ada", 4),
    (faults.broken_camera, "unreadable-camera", "ada", 4),
    (faults.empty_picture, "empty-picture", "ada", 4),
    (faults.mixed_sizes, "mixed-sizes", "ada", 5),
]


@pytest.mark.parametrize(
    ("plant", "check", "name", "frame"),
    FILE_FAULTS,
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_broken_files_are_found_and_left_out(plant, check, name, frame, planted):
    plant(planted)
    status, report = examine(planted, "--fix", "--no-geometry")
    assert checks(report["cured"]) == {check}
    assert status == 0
    data = MultiViewSet(planted)
    if frame is None:
        assert name not in data.names and len(data.names) == 1
    else:
        left = [other for other in range(heads.N_VIEWS) if other != frame]
        assert data.frames(name) == left
        split = data.split_views("train", name) + data.split_views("test", name)
        assert sorted(split) == left
    for other in data.names:
        data.load(other)  # what is left reads without complaint


def test_swapped_pictures_are_left_out(planted):
    faults.swapped_pictures(planted)
    status, report = examine(planted, "--fix", "--n_views", "0")
    assert checks(report["cured"]) == {"camera-outlier"}
    assert status == 0
    assert set(range(heads.N_VIEWS)) - set(MultiViewSet(planted).frames("ada")) == {2, 11}


# Faults of the pictures' colours and alpha: (fault, check).
PICTURE_FAULTS = [
    (faults.premultiplied, "premultiplied-alpha"),
    (faults.white_matte, "white-matte"),
    (faults.inverted_alpha, "inverted-alpha"),
]


@pytest.mark.parametrize(
    ("plant", "check"), PICTURE_FAULTS, ids=lambda value: getattr(value, "__name__", "")
)
def test_alpha_faults_are_found_and_cured(plant, check, planted, clean):
    plant(planted)
    status, report = examine(planted, "--fix")
    assert checks(report["cured"]) == {check} and status == 0
    ours, theirs = (MultiViewSet(root).load("ben").images.astype(int) for root in (planted, clean))
    assert np.array_equal(ours[..., 3], theirs[..., 3])
    # 8 bits of a colour that was multiplied by alpha hold this much of it.
    steps = np.abs(ours - theirs)[..., :3].max(-1) * theirs[..., 3] / 255
    assert steps.max() <= 2


def test_resized_pictures_keep_their_field_of_view(planted, clean):
    faults.resized_pictures(planted)
    status, report = examine(planted, "--fix")
    assert checks(report["cured"]) == {"resolution"} and status == 0
    assert MultiViewSet(planted).load("ada").images.shape[1:3] == (32, 32)
    assert_same_cameras(planted, clean)


def test_another_frame_is_frontal(planted):
    faults.swapped_frames(planted, 3)
    portrait = MultiViewSet(planted).load("ada", [3]).images[0]
    status, report = examine(planted, "--fix")
    assert checks(report["cured"]) == {"no-frontal-portrait"} and status == 0
    assert "frame 3" in report["cured"][0]["cure"]
    assert np.array_equal(MultiViewSet(planted).portrait("ada"), portrait)


@pytest.mark.parametrize(
    ("plant", "check"), [(faults.odd_scale, "scale"), (faults.off_centre, "centre")]
)
def test_subjects_are_put_into_the_box(plant, check, planted, clean):
    plant(planted)
    status, report = examine(planted, "--fix")
    assert checks(report["cured"]) == {check} and status == 0
    ours, theirs = cameras(planted).c2w[:, :3, 3], cameras(clean).c2w[:, :3, 3]
    # Relative to each other the cameras stand as before, on a sphere about the box's middle.
    ratio = (ours - ours[0]).norm(dim=-1)[1:] / (theirs - theirs[0]).norm(dim=-1)[1:]
    assert torch.allclose(ratio, ratio[:1].expand_as(ratio), rtol=1e-3)
    assert 0.9 < ratio[0] < 1.2
    assert (ours.norm(dim=-1) / ratio[0] - 3.7).abs().max() < 0.15


def test_an_unnamed_focal_factor_is_estimated(planted, clean):
    faults.wrong_sensor(planted)
    status, report = examine(planted, "--fix", "--grid", "36", "--size", "64")
    assert "focal-factor" in checks(report["cured"]) and status == 0
    assert float(cameras(planted).fx[0] / cameras(clean).fx[0]) == pytest.approx(1, abs=0.2)


def test_flipped_pictures_are_mirrored_together_with_the_world(planted, clean):
    """The cure is consistent: every camera of the mirrored subject stands mirrored."""
    faults.flipped_pictures(planted)
    status, report = examine(planted, "--fix")
    assert checks(report["cured"]) == {"handedness"} and status == 0
    mirror = torch.tensor([-1.0, 1.0, 1.0])
    assert torch.allclose(
        cameras(planted).c2w[:, :3, 3], cameras(clean).c2w[:, :3, 3] * mirror, atol=1e-3
    )


@pytest.mark.parametrize(
    ("plant", "check"),
    [(faults.leaking_split, "split-leak"), (faults.unknown_split, "split-unknown")],
)
def test_splits(plant, check, planted):
    plant(planted)
    status, report = examine(planted, "--fix", "--no-geometry")
    assert checks(report["cured"]) == {check} and status == 0
    data = MultiViewSet(planted)
    assert not set(data.split("train")) & set(data.split("test"))


@pytest.mark.parametrize(
    ("plant", "check"),
    [
        (faults.no_alpha, "no-alpha"),
        (faults.opaque_alpha, "opaque-alpha"),
        (faults.drifting_cameras, "cameras-disagree"),
    ],
)
def test_what_cannot_be_cured_is_said_and_left_alone(plant, check, planted):
    plant(planted)
    before = (planted / "dataset.json").read_bytes()
    status, report = examine(planted, "--fix")
    assert status == 1 and checks(report["findings"]) == {check} and report["cured"] == []
    assert report["findings"][0]["cure"]
    assert (planted / "dataset.json").read_bytes() == before


def test_without_fix_nothing_is_written(planted, capsys):
    faults.opencv_axes(planted)
    before = {path: path.read_bytes() for path in planted.rglob("*") if path.is_file()}
    status, report = examine(planted)
    assert status == 1 and checks(report["findings"]) == {"camera-axes"}
    assert "--fix does it" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in planted.rglob("*") if path.is_file()} == before


def test_several_faults_at_once_are_cured_and_the_description_is_kept(planted, clean):
    faults.inverse_matrices(planted)
    faults.inverted_alpha(planted)
    faults.truncated_picture(planted)
    status, report = examine(planted, "--fix")
    assert status == 0
    expected = {"camera-matrix", "inverted-alpha", "unreadable-picture"}
    assert checks(report["cured"]) == expected
    assert torch.allclose(cameras(planted, "ben").c2w, cameras(clean, "ben").c2w, atol=1e-3)
    original = json.loads((clean / "dataset.json").read_text())
    assert json.loads((planted / "dataset.before_doctor.json").read_text()) == original
    cured = json.loads((planted / "dataset.json").read_text())
    assert cured["version"] == 2 and cured["license"] == original["license"]
    assert cured["objects"]["ada"]["attributes"] == {"name": "ada"}


def test_bad_usage(tmp_path, capsys):
    assert cli.main(["doctor", str(tmp_path / "nowhere")]) == 2
    assert cli.main(["doctor", str(tmp_path)]) == 2
    assert cli.main(["doctor", str(tmp_path), "--grid", "2"]) == 2
    assert all(line.startswith("error: ") for line in capsys.readouterr().err.splitlines())


def test_a_damaged_description_is_written_anew(planted, clean):
    (planted / "dataset.json").write_text("{")
    status, report = examine(planted, "--fix")
    assert status == 0 and checks(report["cured"]) == {"no-description"}
    assert (planted / "dataset.before_doctor.json").read_text() == "{"
    assert_same_cameras(planted, clean)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "check", "curable"),
    [
        (faults.left_handed, "handedness", True),
        (faults.flipped_pictures, "handedness", True),
        (faults.focal_in_pixels, "focal-unit", True),
        (faults.wrong_sensor, "focal-factor", True),
        (faults.premultiplied, "premultiplied-alpha", True),
        (faults.swapped_pictures, "camera-outlier", True),
        (faults.foreign_subject, "subject-disagrees", True),
        (faults.turned_world, "world-axes", True),
        (faults.drifting_cameras, "cameras-disagree", False),
    ],
)
def test_faults_planted_into_the_example(plant, check, curable, project, tmp_path):
    """People instead of balls, with the default settings; heads are nearly symmetric."""
    root = tmp_path / "set"
    root.mkdir()
    description = json.loads((project / "data/example/dataset.json").read_text())
    names = [f"subject_{index:06d}" for index in range(3)]
    for name in names:
        shutil.copytree(project / "data/example" / name, root / name)
    description["splits"]["identities"] = {"train": names, "validation": [], "test": []}
    (root / "dataset.json").write_text(json.dumps(description))
    plant(root)
    report = tmp_path / "report.json"
    status = cli.main(["doctor", str(root), "--fix", "--json", str(report)])
    found = json.loads(report.read_text())
    assert checks(found["cured" if curable else "findings"]) == {check}
    assert status == (0 if curable else 1)
