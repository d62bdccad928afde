"""Pictures as people have them."""

import numpy as np
import pytest
from PIL import Image

from runtime.errors import UserError
from runtime.picture_files import name_pictures, read_picture


def test_grey_of_16_bits_keeps_its_shades(tmp_path):
    """Pillow's own conversion makes everything above 255 white."""
    shades = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(shades).save(tmp_path / "grey.png")
    read = read_picture(tmp_path / "grey.png")
    assert read.shape == (8, 8, 3)
    assert np.abs(read[..., 0].astype(float) - shades / 257).max() <= 0.5
    Image.fromarray(shades.astype(np.float32) / 65535).save(tmp_path / "float.tiff")
    assert np.abs(read_picture(tmp_path / "float.tiff")[..., 1] - shades / 257).max() <= 0.5


def test_folders_name_what_can_not_be_read(tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.bmp")
    Image.new("P", (4, 4)).save(tmp_path / "b.gif")
    (tmp_path / "c.HEIC").write_bytes(b"heic")
    (tmp_path / "notes.txt").write_text("no picture")
    found = name_pictures([tmp_path])
    assert list(found) == ["a", "b", "c"]
    assert read_picture(found["a"]).tolist()[0][0] == [255, 0, 0]
    assert read_picture(found["b"]).shape == (4, 4, 3)
    with pytest.raises(UserError, match="c.HEIC.*JPEG or PNG"):
        read_picture(found["c"])
    with pytest.raises(UserError, match="same name"):
        name_pictures([tmp_path, tmp_path / "a.png"])
