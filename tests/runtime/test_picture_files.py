"""Pictures as people have them."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from runtime.errors import UserError
from runtime.picture_files import name_pictures, open_picture, read_picture


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


def test_files_that_are_no_pictures_or_unpack_hugely_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    for name in ("pipe", "device"):
        with pytest.raises(UserError, match=f"{name}.png is a pipe, socket or device"):
            read_picture(tmp_path / f"{name}.png")
    plain = tmp_path / "wide.png"
    Image.new("RGB", (8, 8)).save(plain)
    content = bytearray(plain.read_bytes())
    content[16:24] = struct.pack(">II", 10**5, 10**5)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    plain.write_bytes(content)
    for decode in (True, False):
        with pytest.raises(UserError, match="wide.png has more than 67108864 pixels"):
            open_picture(plain, decode=decode)
    notes = PngImagePlugin.PngInfo()
    for index in range(70):
        notes.add_text(f"note{index}", "a" * 2**20, zip=True)  # 70 MiB in 70 KiB
    Image.new("RGB", (8, 8)).save(tmp_path / "notes.png", pnginfo=notes)
    with pytest.raises(UserError, match="notes.png is not a readable picture"):
        read_picture(tmp_path / "notes.png")
