"""Several portraits a person: photographs chosen at random in training, never in validation."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from captures.multiview import MultiViewSet
from captures.photographs import write_portrait
from diffusion.conditioning.features import PortraitEncoder
from diffusion.data.pairs import DenoisingDataset, PairedSet
from diffusion.data.portraits import PicturePortraits
from diffusion.training.train_base import TrainBaseConfig
from runtime.errors import UserError

SHADES = {0: 40, 3: 200}
"""Number of a photograph → its grey."""


@pytest.fixture
def photographed(tiny_views, tmp_path: Path) -> MultiViewSet:
    """The set with two photographs of s0, of 48² pixels, and none of the others."""
    root = tmp_path / "photographed"
    shutil.copytree(tiny_views.root, root)
    camera = tiny_views.portrait_camera("s0").scaled_to(48, 48)
    for number, shade in SHADES.items():
        picture = np.full((48, 48, 4), 255, np.uint8)
        picture[..., :3] = shade
        write_portrait(root / "s0", number, picture, camera, {})
    return MultiViewSet(root)


def test_photographs_are_chosen_at_random_each_time(
    photographed, tiny_fitted, tiny_vae, tmp_path
):
    portraits = PicturePortraits(photographed, PortraitEncoder(tiny_vae, 32), tmp_path, 0.75)
    frontal = portraits.draw("s0")
    pairs = PairedSet(tiny_fitted, portraits, ["s0", "s1"], (8,))
    dataset = DenoisingDataset(pairs, 20, 0.0, 3, "base")
    seen = {"frontal": 0, 40: 0, 200: 0}
    for position in range(400):
        item = dataset[position]
        assert item.portrait.shape == (1, 3, 32, 32) and item.portrait.dtype == torch.uint8
        if item.names == ["s0"]:
            shade = int(item.portrait[0, 0, 9, 9])
            seen["frontal" if torch.equal(item.portrait, frontal) else shade] += 1
        else:  # has no photographs
            assert torch.equal(item.portrait, portraits.draw("s1"))
        assert torch.equal(item.portrait, dataset[position].portrait)
    assert sum(seen.values()) == 200
    assert 30 < seen["frontal"] < 70 and min(seen[40], seen[200]) > 50
    problems = dataset.validation_problems(["s0"], 30)
    assert all(torch.equal(problem.portrait, frontal) for problem in problems)


def test_photographs_that_can_not_be_had_are_refused(tiny_views, tiny_vae, tmp_path):
    with pytest.raises(UserError, match="holds no portraits drawn as photographs"):
        PicturePortraits(tiny_views, PortraitEncoder(tiny_vae, 32), tmp_path, 0.5)
    config = TrainBaseConfig(
        output_dir=tmp_path, triplanes=tmp_path, features=tmp_path, photographs=0.5
    )
    with pytest.raises(UserError, match="--photographs needs the pictures"):
        config.check()
