"""The files that an avatar's folder ends with, and pictures without background."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from renderer.render import RenderSettings
from tests.triavatar.export.ball import SETTINGS, ball_color, ball_decoder, ball_planes
from triavatar.avatar import Avatar
from triavatar.export.maker import take_away
from triavatar.generate import GenerateConfig, Portraits, Request, write_avatar
from triavatar.render_avatar import ViewConfig, write_views

MARCH = RenderSettings(steps=192, grid=48)


def test_take_away_writes_what_is_asked_for(tmp_path):
    files = take_away(tmp_path / "anna", ball_planes(), ball_decoder(), ("html", "ply"), SETTINGS)
    assert files == [tmp_path / "anna" / "avatar.html", tmp_path / "anna" / "avatar.ply"]
    assert sorted(p.name for p in (tmp_path / "anna").iterdir()) == ["avatar.html", "avatar.ply"]
    assert "<title>anna</title>" in files[0].read_text()
    assert files[1].read_bytes().startswith(b"ply\n")
    assert take_away(tmp_path / "bert", ball_planes(), ball_decoder(), ()) == []
    assert not (tmp_path / "bert").exists()


def test_views_with_alpha(tmp_path):
    avatar = Avatar(ball_planes(), ball_decoder())
    views = ViewConfig(size=48, azimuths=(0.0,), frames=0, march=MARCH, alpha=True)
    stills = write_views(tmp_path, avatar, views)
    saved = np.asarray(Image.open(tmp_path / "view_+000.png"))
    assert saved.shape == (48, 48, 4) and (saved == stills[0]).all()
    assert saved[0, 0, 3] == 0 and saved[24, 24, 3] == 255
    # The nearest point of the ball, in its own colour; composited it is the view on grey.
    assert np.abs(saved[24, 24, :3] / 255 - ball_color(np.array([0, 0.05, 0.56]))).max() < 0.03
    opaque = ViewConfig(size=48, azimuths=(0.0,), frames=0, march=MARCH, background=0.5)
    grey = write_views(tmp_path, avatar, opaque)[0]
    part = saved[..., 3:] / 255
    assert np.abs(saved[..., :3] * part + 127.5 * (1 - part) - grey).max() < 3


@pytest.mark.slow  # exports are made as finely as for users
def test_generate_exports_beside_the_views(tmp_path):
    portrait = tmp_path / "anna.png"
    Image.new("RGB", (16, 16)).save(portrait)
    avatar = Avatar(ball_planes(), ball_decoder(), "anna", np.zeros((16, 16, 3), np.uint8))
    config = GenerateConfig(portraits=(portrait,), output_dir=tmp_path / "run")
    request = Request(config, Portraits.of(config))
    avatar.record |= request.source("anna")
    views = ViewConfig(size=32, azimuths=(0.0,), frames=0, march=MARCH)
    write_avatar(tmp_path / "run", avatar, views)
    assert request.made("anna")
    more = replace(request, config=replace(config, export=("glb",)))
    assert not more.made("anna")
    write_avatar(tmp_path / "run", avatar, views, ("glb",))
    assert more.made("anna") and (tmp_path / "run/avatars/anna/avatar.glb").stat().st_size > 10**5
