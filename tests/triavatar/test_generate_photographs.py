"""What ``generate`` does with photographs, and with portraits that need no preparation."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captures.multiview import MultiViewSet
from runtime.errors import UserError
from triavatar.generate import GenerateConfig, read_portraits


def _config(**changes):
    here = Path()
    return GenerateConfig("v", here, here, here, here, **changes)


def test_ready_portraits_are_taken_as_they_are(project, tmp_path):
    """Cut-out pictures and those on white keep every pixel, whether or not photographs wouldn't."""
    portrait = Image.fromarray(
        MultiViewSet(project / "data" / "example").portrait("subject_000001")
    )
    portrait.save(tmp_path / "cut_out.png")
    on_white = Image.new("RGB", portrait.size, "white")
    on_white.paste(portrait, (0, 0), portrait)
    on_white.save(tmp_path / "on_white.png")
    files = [(name, tmp_path / f"{name}.png") for name in ("cut_out", "on_white")]
    pictures, prepared = read_portraits(_config(portraits=(tmp_path,)), files)
    assert not prepared
    assert np.array_equal(pictures["cut_out"], np.asarray(portrait))
    assert np.array_equal(pictures["on_white"], np.asarray(on_white))


def test_photographs_are_prepared_unless_told_not_to(tmp_path):
    pytest.importorskip("cv2", reason="portraits need OpenCV")
    data = pytest.importorskip("skimage.data", reason="scikit-image brings the photograph")
    photo = np.ascontiguousarray(data.astronaut()[:360, 60:400])
    Image.fromarray(photo).save(tmp_path / "me.png")
    files = [("me", tmp_path / "me.png")]
    config = _config(portraits=(tmp_path,))
    config.portrait.size = 96
    pictures, prepared = read_portraits(config, files)
    assert prepared == {"me"} and pictures["me"].shape == (96, 96, 4)
    assert 0.3 < (pictures["me"][..., 3] > 127).mean() < 0.7
    config.prepare = False
    pictures, prepared = read_portraits(config, files)
    assert not prepared and np.array_equal(pictures["me"], photo)
    Image.fromarray(photo[200:]).save(tmp_path / "me.png")
    config.prepare = True
    with pytest.raises(UserError, match="no face.*me.png.*--no_prepare"):
        read_portraits(config, files)
