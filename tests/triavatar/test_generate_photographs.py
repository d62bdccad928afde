"""What ``generate`` does with photographs, and with portraits that need no preparation."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captures.multiview import MultiViewSet
from photos.portraits import PortraitSettings
from runtime.errors import UserError
from tests.scenes import constant_decoder
from triavatar.generate import GenerateConfig, Portraits
from triavatar.pipeline import AvatarPipeline


def _read(folder: Path, pipeline: AvatarPipeline, **changes):
    config = GenerateConfig(portraits=(folder,), **changes)
    portraits = Portraits.of(config)
    pictures, refused = {}, []
    for name in portraits.files:
        try:
            pictures[name] = portraits.read(name, pipeline, config.prepare)
        except UserError as error:
            refused.append(str(error))
    return pictures, refused


def test_ready_portraits_are_taken_as_they_are(project, tmp_path):
    """Cut-out pictures and those on white keep every pixel, whether or not photographs wouldn't."""
    portrait = Image.fromarray(
        MultiViewSet(project / "data" / "example").portrait("subject_000001")
    )
    portrait.save(tmp_path / "cut_out.png")
    on_white = Image.new("RGB", portrait.size, "white")
    on_white.paste(portrait, (0, 0), portrait)
    on_white.save(tmp_path / "on_white.png")
    pictures, refused = _read(tmp_path, AvatarPipeline(constant_decoder(1.0)))
    assert not refused
    assert np.array_equal(pictures["cut_out"], np.asarray(portrait))
    assert np.array_equal(pictures["on_white"], np.asarray(on_white))


def test_photographs_are_prepared_unless_told_not_to(tmp_path):
    pytest.importorskip("cv2", reason="portraits need OpenCV")
    data = pytest.importorskip("skimage.data", reason="scikit-image brings the photograph")
    photo = np.ascontiguousarray(data.astronaut()[:360, 60:400])
    Image.fromarray(photo).save(tmp_path / "me.png")
    pipeline = AvatarPipeline(constant_decoder(1.0), portrait=PortraitSettings(size=96))
    pictures, refused = _read(tmp_path, pipeline)
    assert not refused and pictures["me"].shape == (96, 96, 4)
    assert 0.3 < (pictures["me"][..., 3] > 127).mean() < 0.7
    # As it is, it is no square; cropped, nobody is in it.
    pictures, refused = _read(tmp_path, pipeline, prepare=False)
    assert not pictures and "square" in refused[0]
    Image.fromarray(photo[200:]).save(tmp_path / "me.png")
    (tmp_path / "other.heic").write_bytes(b"no picture")
    pictures, refused = _read(tmp_path, pipeline)
    assert not pictures and len(refused) == 2
    assert "no face" in refused[0] and "--no_prepare" in refused[0]
    assert "other.heic" in refused[1] and "JPEG" in refused[1]


def test_empty_portraits_are_refused(tmp_path):
    Image.new("RGBA", (32, 32), (200, 100, 50, 0)).save(tmp_path / "clear.png")
    Image.new("RGB", (32, 32), "white").save(tmp_path / "white.png")
    Image.new("RGB", (64, 64), (90, 120, 160)).save(tmp_path / "wall.png")
    pictures, refused = _read(tmp_path, AvatarPipeline(constant_decoder(1.0)))
    assert not pictures and len(refused) == 3
    assert "clear.png is empty" in refused[0] and "white.png is empty" in refused[2]
    assert "no face" in refused[1]


def test_a_head_that_stands_elsewhere_is_brought_into_place(project, tmp_path):
    """Cut out or on white, small and aside in an oblong picture: framed as photographs are."""
    pytest.importorskip("cv2", reason="faces need OpenCV")
    true = Image.fromarray(MultiViewSet(project / "data" / "example").portrait("subject_000001"))
    aside = Image.new("RGBA", (420, 300), (0, 0, 0, 0))
    aside.paste(true.resize((210, 210), Image.Resampling.LANCZOS), (170, 90))
    aside.save(tmp_path / "aside.png")
    on_white = Image.new("RGB", aside.size, "white")
    on_white.paste(aside, (0, 0), aside)
    on_white.save(tmp_path / "aside_on_white.png")
    pictures, refused = _read(tmp_path, AvatarPipeline(constant_decoder(1.0)))
    assert not refused
    wanted = np.asarray(true)[..., 3] / 255
    for picture in pictures.values():
        assert picture.shape[0] == picture.shape[1]
        got = np.asarray(Image.fromarray(picture).resize(true.size))[..., 3] / 255
        assert np.abs(got - wanted).mean() < 0.06
