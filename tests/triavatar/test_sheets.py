"""Portraits, sheets and videos."""

import imageio_ffmpeg
import numpy as np

from triavatar.sheets import Cell, Row, draw_sheet, on_white
from triavatar.turntable import write_video


def test_on_white():
    picture = np.array([[[0, 0, 0, 0], [10, 20, 30, 255], [0, 0, 0, 51]]], np.uint8)
    assert on_white(picture)[0].tolist() == [[255] * 3, [10, 20, 30], [204] * 3]


def test_sheet_places_tiles_in_order():
    red, blue = (np.full((8, 8, 3), c, np.uint8) for c in ((255, 0, 0), (0, 0, 255)))
    sheet = draw_sheet([Row("", [Cell(red), Cell(blue)]), Row("", [Cell(None), Cell(red)])], 16)
    middle = [sheet[y, x].tolist() for y in (14, 54) for x in (20, 42)]
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
