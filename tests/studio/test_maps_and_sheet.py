"""Depth, normal and label maps; the contact sheet; the review."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.errors import UserError
from studio.drawing.maps import DEPTH_STEPS, draw_maps, write_maps
from studio.drawing.raster import Camera
from studio.drawing.scene import LABELS, flatten
from studio.looks.head_rig import head_rig
from studio.sets.contact_sheet import BACKGROUND, StudioSheetConfig, draw_sheet
from studio.sets.review import StudioReviewConfig, review

EXAMPLE = Path(__file__).resolve().parents[2] / "data" / "example"


def test_maps_of_two_planes(reference, tmp_path):
    pytest.importorskip("numba", reason="the rasteriser needs numba")
    camera = Camera.of(head_rig(1, 32), 0)
    near = reference.plane(0.3, (1, 1, 1, 1), 0.2, label="clothes")
    hair = reference.plane(0.5, (1, 1, 1, 0.3), 0.1, label="hair", blended=True)
    far = reference.plane(-0.2, (1, 1, 1, 1), 0.5)
    maps = draw_maps(flatten([near, far, hair]), camera)
    middle, side = (16, 16), (16, 5 + 6)
    assert maps.depth[middle] == pytest.approx(3.7 - 0.3, abs=1e-4)  # faint hair is no surface
    assert maps.label[middle] == LABELS.index("clothes")
    assert maps.depth[side] == pytest.approx(3.7 + 0.2, abs=1e-4)
    assert maps.label[side] == LABELS.index("skin")
    assert maps.depth[0, 0] == 0 and maps.label[0, 0] == 0
    assert np.allclose(maps.normal[middle], [0, 0, 1])
    write_maps(tmp_path, 7, maps, ("depth", "normal", "label"))
    depth = np.asarray(Image.open(tmp_path / "depth_000007.png")).astype(float) / DEPTH_STEPS
    assert np.abs(depth - maps.depth).max() <= 0.5 / DEPTH_STEPS + 1e-6
    normal = np.asarray(Image.open(tmp_path / "normal_000007.png"))
    assert np.allclose(normal[middle] / 127.5 - 1, [0, 0, 1], atol=0.01)
    assert (np.asarray(Image.open(tmp_path / "label_000007.png")) == maps.label).all()


def test_sheet_shows_every_subject(tmp_path):
    config = StudioSheetConfig(EXAMPLE, tmp_path / "s.png", n_subjects=5, columns=3, size=32)
    draw_sheet(config)
    sheet = np.asarray(Image.open(tmp_path / "s.png").convert("L"))
    assert sheet.shape == (64, 96)
    cells = sheet.reshape(2, 32, 3, 32).transpose(0, 2, 1, 3).reshape(6, -1)
    assert [bool((cell < 200).any()) for cell in cells] == [True] * 5 + [False]
    with pytest.raises(UserError):
        draw_sheet(StudioSheetConfig(tmp_path / "none", tmp_path / "t.png"))


def test_review_refuses_what_it_cannot_draw(tmp_path):
    root = tmp_path / "r"
    for wrong, word in (
        (StudioReviewConfig(root, size=0), "size"),
        (StudioReviewConfig(root, directions=()), "direction"),
        (StudioReviewConfig(root, elevation=90.0), "elevation"),
        (StudioReviewConfig(root, expressions=("smirk",)), "smirk"),
    ):
        with pytest.raises(UserError, match=word):
            review(wrong)
    assert not root.exists()


@pytest.mark.assets
def test_review_draws_every_side_and_expression_and_keeps_verdicts(assets, tmp_path):
    pytest.importorskip("numba", reason="the rasteriser needs numba")
    config = StudioReviewConfig(
        tmp_path, assets, subjects=(2,), directions=(0.0, 180.0), expressions=("laugh",), size=48
    )
    review(config)
    sheet = np.asarray(Image.open(tmp_path / "sheet_00.png"), dtype=float)
    assert sheet.shape[1] == 3 * 48 and sheet.shape[0] > 48
    front, back, laughing = (sheet[:48, 48 * i : 48 * (i + 1)] for i in range(3))
    outline = [np.abs(picture - BACKGROUND).max(-1) > 30 for picture in (front, laughing)]
    assert 0.2 < outline[0].mean() < 0.9
    # Of the front the face alone changes with the expression; the back is another picture.
    assert (outline[0] != outline[1]).mean() < 0.02
    assert 0.2 < np.abs(front - laughing).mean() < np.abs(front - back).mean()
    table = (tmp_path / "verdicts.csv").read_text()
    assert table.splitlines()[0].startswith("seed,subject,sentence") and "\n0,2," in table
    (tmp_path / "verdicts.csv").write_text("judged")
    review(config)
    assert (tmp_path / "verdicts.csv").read_text() == "judged"
