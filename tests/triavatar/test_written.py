"""What lies in an avatar's folder: the map of samples and the report."""

import re

import numpy as np
import pytest
import torch

from renderer.render import RenderSettings
from tests.triavatar.export.ball import ball_decoder, ball_planes
from triavatar.avatar import Avatar
from triavatar.render_avatar import ViewConfig
from triavatar.written.folder import write_avatar
from triavatar.written.samples import write_samples

VIEWS = ViewConfig(
    size=32, azimuths=(0.0, 180.0), frames=0, march=RenderSettings(steps=96, grid=32)
)


def ball(name: str = "anna") -> Avatar:
    return Avatar(ball_planes(), ball_decoder(), name, np.full((16, 16, 3), 90, np.uint8))


def test_equal_samples_differ_nowhere_and_others_do(tmp_path):
    same = write_samples(tmp_path / "same", ball(), [ball()], VIEWS)
    assert same == {"count": 1, "differ": {"+0": 0.0, "+180": 0.0}}
    other = ball()
    other.planes = torch.roll(other.planes, 2, dims=-1)
    found = write_samples(tmp_path / "other", ball(), [other], VIEWS)
    assert min(found["differ"].values()) > 0.01
    saved = Avatar.load(tmp_path / "other" / "samples", device="cpu")
    assert saved.name == "sample_1"
    assert (saved.planes - other.planes.clamp(-1, 1)).abs().max() < 1e-3


def test_the_report_says_what_is_known(tmp_path):
    avatar = ball()
    avatar.record = {
        "likeness": {
            "portrait_psnr": 31.25,
            "surprise": 2.5,
            "distance": 0.9,
            "camera": {"yaw": 0.2},
        },
        "warnings": ["the portrait is <unlike> those learnt from"],
        "seconds": {"avatar": 12.3},
    }
    write_avatar(tmp_path, avatar, VIEWS)
    text = (tmp_path / "avatars" / "anna" / "report.html").read_text()
    assert not re.search(r"__[A-Z]+__|https?://", text)
    for said in ("31.2 dB", "not sure", "+11°", "12.3 s", "&lt;unlike&gt;", "triavatar view"):
        assert said in text, said
    assert text.count("data:image/jpeg") == 3  # the portrait and two views
    assert avatar.record["seconds"].keys() == {"avatar", "views"}


def test_an_export_that_cannot_be_made_is_a_warning(tmp_path):
    pytest.importorskip("skimage", reason="exports need scikit-image")
    avatar = ball()
    avatar.planes = torch.full_like(avatar.planes, -1.0)  # nothing is there
    write_avatar(tmp_path, avatar, VIEWS, ("html",))
    assert "no avatar.html" in avatar.record["warnings"][0]
    assert (tmp_path / "avatars" / "anna" / "avatar.json").is_file()
