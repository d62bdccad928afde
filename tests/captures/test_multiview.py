"""The multi-view folder format: round trip and every way it can be broken."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from captures.cameras import orbit_cameras
from captures.multiview import MultiViewSet, composite_rgba, resize_rgba, select_names
from runtime.errors import UserError
from tests.scenes import picture_of_spheres, ray_spheres, write_spheres


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_spheres(tmp_path_factory.mktemp("spheres") / "set")


@pytest.fixture
def spheres(written, tmp_path):
    """A copy that a test may break."""
    return shutil.copytree(written, tmp_path / "set")


def image(root, frame=1, subject="subject_000"):
    return root / subject / f"img_proc_fg_{frame:06d}.png"


def metadata(root, frame=1, subject="subject_000"):
    return root / subject / f"metadata_{frame:06d}.json"


def test_round_trip_of_pictures_cameras_and_splits(written):
    data = MultiViewSet(written)
    views = data.load("subject_000")
    cameras = orbit_cameras(6, size=16)
    assert data.names == ["subject_000", "subject_001"]
    assert torch.allclose(views.cameras.c2w, cameras.c2w, atol=1e-5)
    assert torch.allclose(views.cameras.fx, cameras.fx, rtol=1e-5)
    assert np.array_equal(views.images[2], picture_of_spheres(cameras, 2))
    assert data.split("train") == ["subject_000"] and data.split("test") == ["subject_001"]
    assert data.split_views("train", "subject_000") == [0, 1, 2, 3, 4]
    assert data.split_views("test", "subject_000") == [5]
    assert data.attributes("subject_000") == {"hair": "none"}
    assert np.array_equal(data.portrait("subject_000"), views.images[0])


def test_cameras_read_back_see_the_scene(written):
    """Rays of the loaded cameras hit the spheres where the loaded pictures are opaque."""
    views = MultiViewSet(written).load("subject_000", size=8)
    for index in range(len(views.frames)):
        which, _ = ray_spheres(*views.cameras.image_rays(index))
        alpha = torch.from_numpy(views.images[index, ..., 3]).flatten()
        assert ((which >= 0) == (alpha > 127)).float().mean() > 0.95


def test_resizing_does_not_bleed_hidden_colour():
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., :3] = (255, 0, 0)  # red where nothing is
    rgba[:, :2] = (0, 0, 255, 255)
    small = np.asarray(resize_rgba(Image.fromarray(rgba, "RGBA"), 1))
    assert small[0, 0].tolist() == [0, 0, 255, 128]


def test_compositing_on_grey():
    pixel = torch.tensor([[[255, 0, 0, 51]]], dtype=torch.uint8)
    assert torch.allclose(composite_rgba(pixel, 0.5)[0, 0], torch.tensor([0.6, 0.4, 0.4]))


def test_missing_and_empty_sets(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        MultiViewSet(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no dataset.json"):
        MultiViewSet(tmp_path)
    with pytest.raises(UserError, match="holds no subjects"):
        MultiViewSet(tmp_path, convention="rodinhd")


def test_a_set_that_states_its_convention_takes_no_other(written):
    with pytest.raises(UserError, match="remove --convention"):
        MultiViewSet(written, convention="rodinhd")


def test_a_folder_without_description_reads_under_a_named_convention(spheres):
    expected = MultiViewSet(spheres).load("subject_000").cameras.c2w
    (spheres / "dataset.json").unlink()
    data = MultiViewSet(spheres, convention="rodinhd")
    assert torch.allclose(data.load("subject_000").cameras.c2w, expected, atol=1e-6)
    assert data.split("train") == data.names and data.split("test") == []


def test_missing_picture(spheres):
    image(spheres).unlink()
    with pytest.raises(UserError, match="picture missing.*000001.png"):
        MultiViewSet(spheres).load("subject_000", [0, 1])


def test_corrupt_picture(spheres):
    image(spheres).write_bytes(image(spheres).read_bytes()[:60])
    with pytest.raises(UserError, match="000001.png is not a readable picture"):
        MultiViewSet(spheres).load("subject_000")


def test_picture_without_alpha(spheres):
    Image.new("RGB", (16, 16)).save(image(spheres))
    with pytest.raises(UserError, match="no alpha channel"):
        MultiViewSet(spheres).load("subject_000")


def test_picture_of_another_size_than_its_metadata(spheres):
    Image.new("RGBA", (8, 8)).save(image(spheres))
    with pytest.raises(UserError, match="states 16×16 pixels but its picture has 8×8"):
        MultiViewSet(spheres).load("subject_000")


def test_pictures_of_different_sizes(spheres):
    Image.new("RGBA", (8, 8)).save(image(spheres))
    content = json.loads(metadata(spheres).read_text())
    content["cameras"][0]["resolution"] = [8, 8]
    metadata(spheres).write_text(json.dumps(content))
    with pytest.raises(UserError, match="must share one size"):
        MultiViewSet(spheres).load("subject_000")


@pytest.mark.parametrize("key", ["resolution", "focal_length", "sensor_width", "transformation"])
def test_metadata_without_a_key(spheres, key):
    content = json.loads(metadata(spheres).read_text())
    del content["cameras"][0][key]
    metadata(spheres).write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"000001.json.*{key} is missing"):
        MultiViewSet(spheres).load("subject_000")


@pytest.mark.parametrize("broken", ['{"cameras": [', '{"cameras": []}', "{}"])
def test_broken_metadata(spheres, broken):
    metadata(spheres).write_text(broken)
    with pytest.raises(UserError, match="000001.json"):
        MultiViewSet(spheres).load("subject_000")


def test_metadata_with_nan(spheres):
    text = metadata(spheres).read_text()
    content = json.loads(text)
    content["cameras"][0]["transformation"][0][3] = float("nan")
    metadata(spheres).write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"transformation\[0\]\[3\] is nan"):
        MultiViewSet(spheres).load("subject_000")


def test_foreign_description(spheres):
    (spheres / "dataset.json").write_text('{"format": "other"}')
    with pytest.raises(UserError, match="format is 'other' but must be 'triavatar-multiview'"):
        MultiViewSet(spheres)


def test_unknown_subject_and_lists(written, tmp_path):
    data = MultiViewSet(written)
    with pytest.raises(UserError, match="no subject 'nobody'"):
        data.load("nobody")
    names = tmp_path / "names.txt"
    names.write_text("subject_001\n\nnobody\n")
    with pytest.raises(UserError, match="not there: 'nobody'"):
        select_names(data.names, names)
    names.write_text("subject_001\nsubject_000\n")
    assert select_names(data.names, names, 1) == ["subject_000"]
    with pytest.raises(UserError, match="no subjects left"):
        select_names(data.names, None, 5)
