"""Portraits, sheets and videos."""

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from runtime.errors import UserError
from triavatar.pictures import Cell, Row, draw_sheet, on_white, read_picture, save_picture
from triavatar.video import write_video


def test_read_picture_keeps_alpha_and_turns_upright(tmp_path):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[0, 0, 3] = 255
    save_picture(tmp_path / "a.png", rgba)
    assert np.array_equal(read_picture(tmp_path / "a.png"), rgba)
    grey = Image.new("L", (3, 2), 7)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90°
    grey.save(tmp_path / "b.jpg", exif=exif)
    assert read_picture(tmp_path / "b.jpg").shape == (3, 2, 3)


def test_read_picture_refuses_what_is_none(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG broken")
    for name in ("a.png", "missing.png"):
        with pytest.raises(UserError, match=name):
            read_picture(tmp_path / name)


def test_on_white():
    picture = np.array([[[0, 0, 0, 0], [10, 20, 30, 255], [0, 0, 0, 51]]], np.uint8)
    assert on_white(picture)[0].tolist() == [[255] * 3, [10, 20, 30], [204] * 3]


def test_sheet_places_tiles_in_order():
    red, blue = (np.full((8, 8, 3), c, np.uint8) for c in ((255, 0, 0), (0, 0, 255)))
    sheet = draw_sheet([Row("", [Cell(red), Cell(blue)]), Row("", [Cell(None), Cell(red)])], 16)
    middle = [sheet[y, x].tolist() for y in (14, 54) for x in (8, 30)]
    assert middle == [[255, 0, 0], [0, 0, 255], [255, 255, 255], [255, 0, 0]]


def test_video_holds_the_frames(tmp_path):
    frames = np.zeros((6, 33, 48, 3), np.uint8)
    frames[3:] = 255
    write_video(tmp_path / "v.mp4", frames, 10)
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "v.mp4"))
    meta = next(reader)
    means = [np.frombuffer(frame, np.uint8).mean() for frame in reader]
    assert meta["source_size"] == (48, 34) and meta["fps"] == 10
    assert len(means) == 6 and max(means[:3]) < 20 and min(means[3:]) > 235
