"""The tables of the study on likeness."""

import pytest
import torch

from runtime.errors import UserError
from runtime.files import write_json
from runtime.formats.tensor_files import save_tensors
from studies.likeness_methods import METHODS, every_method, settings_of
from studies.likeness_tables import markdown, row_file, summary


def test_groups_of_ways():
    from likeness.settings import LikenessSettings

    methods = every_method(("mean", "floors", "parts"))
    assert methods[:2] == ["mean", "nearest"]
    assert len(methods) == len(set(methods))
    full = LikenessSettings()
    for method in methods:
        settings = settings_of(method, full)
        assert (settings == full) == (method in ("full", "mean", "nearest")), method
    with pytest.raises(UserError, match="did you mean full"):
        every_method(("ful",))


def test_closest_is_told_by_unseen_views_among_everyone(tmp_path):
    random = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 256, (3, 4, 8, 8, 3), generator=random, dtype=torch.uint8)
    files = []
    for index, like in enumerate((0, 2)):
        file = row_file(tmp_path, "frame", 5, "full", f"person_{index}")
        # Views of person 0 look like person 0, those of person 1 like the third of the crowd.
        pictures = (truth[like].float() * 0.9).to(torch.uint8)
        pictures[0] = 0
        save_tensors(file.with_suffix(".safetensors"), {"pictures": pictures})
        figures = [30.0, 20.0 + index, 22.0, 24.0]
        write_json(file, {"psnr": figures, "ssim": [1.0] * 4, "seconds": 2.0, "memory_mb": 7.0})
        files.append(file)
    row = summary(files, truth)
    assert row["rank_1"] == 0.5
    assert row["psnr"] == pytest.approx((22 + 67 / 3) / 2)
    assert row["worst_psnr"] == 22
    assert row["portrait_psnr"] == 30


def test_tables_tell_shares_and_the_curve():
    row = dict.fromkeys(("psnr", "ssim", "portrait_psnr", "worst_psnr", "rank_1"), 0.5)
    row |= {"seconds": 1.0, "memory_mb": 900.0}
    better = row | {"psnr": 1.75}
    one = {"full": better, "full_without_camera": row}
    text = markdown({"frame/100": one, "photograph/100": one, "frame/300": one}, 8, 64)
    assert text.count("+1.25 dB unseen") == 3
    assert "frame, 300" in text
    assert METHODS["full_without_camera"] in text
    assert "Unseen views" not in markdown({"frame/100": one}, 8, 64)
