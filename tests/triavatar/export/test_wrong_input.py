"""Exports and moving pictures that can't be made: one sentence, nothing half-written."""

import signal
import sys

import numpy as np
import pytest
import torch

from renderer.fitted_set import FittedSet
from runtime.errors import UserError, is_disk_full
from tests.scenes import constant_decoder
from tests.triavatar.export.ball import SETTINGS, ball_planes
from triavatar import cli
from triavatar.avatar import Avatar
from triavatar.export.settings import FORMATS

pytest.importorskip("pygltflib")


@pytest.fixture
def room():
    """A function that lets this process write files of so many bytes at most."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("kind", FORMATS)
def test_a_full_disk_leaves_nothing(maker, tmp_path, room, kind):
    folder = tmp_path / "whole"
    maker.write(folder / f"ball.{kind}")
    largest = max(file.stat().st_size for file in folder.iterdir())
    # The very last byte is one too many: pictures beside an OBJ were written long before.
    room(largest - 1)
    with pytest.raises(OSError) as caught:
        maker.write(tmp_path / "full" / f"ball.{kind}")
    room(2**30)
    assert is_disk_full(caught.value)
    assert not list((tmp_path / "full").iterdir())


@pytest.mark.parametrize("kind", FORMATS)
def test_empty_avatars(tmp_path, kind):
    avatar = Avatar(torch.zeros(3, 6, 8, 8), constant_decoder(0.001))
    with pytest.raises(UserError, match="empty"):
        avatar.export(tmp_path / f"a.{kind}", SETTINGS)
    assert not list(tmp_path.iterdir())


def run(*command: str) -> None:
    cli.run([*command, "--device", "cpu"])


def test_commands_refuse_before_they_write(ball_folder, tmp_path):
    """Unknown shapes, other columns, flags of earlier versions, planes without a surface."""
    file = str(ball_folder / "triplanes" / "ball.safetensors")
    out = ["--output_dir", str(tmp_path / "out")]
    with pytest.raises(UserError, match="did you mean jawOpen"):
        run("render", file, *out, "--expression", "jawOpne=1")
    clip = tmp_path / "clip.csv"
    clip.write_text("time,jawOpen,temperature\n0,0.5,20\n")
    with pytest.raises(UserError, match="unknown column 'temperature'"):
        run("render", file, *out, "--clip", str(clip))
    with pytest.raises(UserError, match="rigged is gone: name the format rigged.glb"):
        run("export", file, *out, "--to", "glb", "--export.rigged")
    with pytest.raises(UserError, match="fbx"):
        run("export", file, *out, "--to", "fbx")
    planes = ball_planes(9)
    fitted = FittedSet.create(tmp_path / "fog", constant_decoder(0.001), tuple(planes.shape))
    fitted.put("fog", torch.from_numpy(np.zeros_like(planes.numpy())))
    with pytest.raises(UserError, match="empty"):
        run("export", str(tmp_path / "fog"), *out, "--to", "ply")
    assert not (tmp_path / "out").exists()
