"""The whole command with stand-in networks."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from renderer.fitted_set import FittedSet
from tests.scenes import random_decoder, write_spheres
from tests.triavatar.evaluation.stand_ins import (
    StandInInception,
    write_clip,
    write_onnx,
    write_torchscript,
)
from triavatar import cli


@pytest.fixture
def judged(tmp_path):
    """Arguments of an evaluation of four people of random planes."""
    root = write_spheres(tmp_path / "set", subjects=4, views=4)
    fitted = FittedSet.create(tmp_path / "fitted", random_decoder(), (3, 6, 8, 8))
    torch.manual_seed(0)
    for name in ("subject_000", "subject_001", "subject_002", "subject_003"):
        fitted.put(name, torch.rand(3, 6, 8, 8) - 0.5)
    march = ["--march.steps", "24", "--march.grid", "8", "--device", "cpu"]
    places = ["--triplanes", str(fitted.folder), "--root", str(root)]
    return [*places, "--output_dir", str(tmp_path / "out"), "--views", "all", *march]


def test_every_metric_with_its_network(judged, tmp_path, capsys):
    inception = write_torchscript(tmp_path / "inception.pt", StandInInception())
    face = write_onnx(tmp_path / "face.onnx", torch.eye(3))
    networks = ["--inception", str(inception), "--face_network", str(face)]
    networks += ["--clip", str(write_clip(tmp_path / "clip")), "--lpips", "off"]
    assert cli.main(["evaluate", *judged, *networks]) == 0
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert set(result["mean"]) == {"psnr", "ssim", "clip", "csim"}
    assert result["fid"]["pictures"] == 16 and result["fid"]["fid"] > 0
    assert result["not_measured"] == {}
    low, high = result["interval"]["psnr"]
    assert low < result["mean"]["psnr"] < high
    assert "interval" in (said := capsys.readouterr().out) and "FID" in said
    # An error map is what the pictures on disk say.
    views, errors = (tmp_path / "out" / each / "subject_001" for each in ("views", "errors"))
    ours = np.asarray(Image.open(views / "000001.png")) / 255
    true = np.asarray(Image.open(tmp_path / "set/subject_001/img_proc_fg_000001.png")) / 255
    white = true[..., :3] * true[..., 3:] + 1 - true[..., 3:]
    expected = np.abs(ours - white).mean(-1) / 0.25 * 3
    red = np.asarray(Image.open(errors / "000001.png"))[..., 0] / 255
    assert np.abs(red - expected.clip(0, 1)).max() < 0.02


def test_says_what_to_fetch_for_the_others(judged, tmp_path, capsys):
    assert cli.main(["evaluate", *judged, "--no-match"]) == 0
    said = capsys.readouterr().out
    for name in ("--inception", "--face_network", "--clip"):
        assert name in said
    missing = ["--inception", str(tmp_path / "none.pt")]
    assert cli.main(["evaluate", *judged, *missing]) != 0
    assert "inception-2015-12-05.pt" in capsys.readouterr().err
