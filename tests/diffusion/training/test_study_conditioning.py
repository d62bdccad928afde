"""``study conditioning`` on tiny data: whom it measures, how, and what it keeps."""

import json

import pytest
import torch

from diffusion.sampling.pipelines import BaseTriplanePipeline
from renderer.triplane import shrink_planes
from runtime.errors import UserError
from studies.conditioning import study_conditioning
from studies.conditioning_baselines import BASELINES, LINEAR_SMALL
from studies.conditioning_variants import (
    PAPER,
    StudyConditioningConfig,
    chosen_variants,
    reference,
)
from studies.strangers import BOUNDS, Strangers, enlarged
from studies.upsampling import UPSAMPLER_VARIANTS, upsampler_training


@pytest.fixture
def config(tiny_fitted, tiny_features, tiny_views, tmp_path) -> StudyConditioningConfig:
    return StudyConditioningConfig(
        triplanes=tiny_fitted.folder,
        features=tiny_features.folder,
        output_dir=tmp_path,
        root=tiny_views.root,
        held_out=("test",),
        steps=2,
        batch_size=2,
        plane_size=8,
        width=8,
        views=1,
        pixels=16,
        device="cpu",
    )


def test_the_papers_ablations_in_one_word(config, tmp_path):
    config.variants = ("paper", "reference")
    assert chosen_variants(config) == list(PAPER)
    before = reference(config, tmp_path / "reference_0", 3)
    plain, bare = (
        upsampler_training(before, tmp_path / "u", UPSAMPLER_VARIANTS[name])
        for name in ("upsampler", "upsampler, no augmentation")
    )
    assert (plain.low_res_size, plain.plane_size, plain.seed) == (8, 16, 3)
    assert plain.augment.probability == 0.5 and bare.augment.probability == 0
    plain.check()
    config.root = None
    with pytest.raises(UserError, match="upsampler needs --root"):
        chosen_variants(config)
    config.variants = ("nothing",)
    with pytest.raises(UserError, match="no variant 'nothing'"):
        chosen_variants(config)


def test_a_study_measures_strangers_once(config, monkeypatch, capsys):
    config.variants = ("epsilon", "upsampler, regression")
    study_conditioning(config)
    rows = json.loads((config.output_dir / "table.json").read_text())
    assert list(rows) == [
        *BOUNDS,
        *BASELINES,
        LINEAR_SMALL,
        "epsilon",
        "resizing",
        "resizing, with the mean's detail",
        "upsampler, regression",
    ]
    assert rows["mean"]["plane_error"] == [1.0] and "seconds" not in rows["mean"]
    sampled = rows["epsilon"]
    assert sampled["variety"][0] > 0.1 and sampled["seconds"][0] > 0
    assert all(5 < row["psnr"][0] < 60 and row["ssim"][0] <= 1 for row in rows.values())
    assert [rows[name]["plane_error"][0] > 0 for name in BOUNDS] == [False, True, True]
    # The reference that upsamplers enlarge was trained, and everything is there already.
    assert (config.output_dir / "reference_0" / "snapshots" / "model").is_dir()
    monkeypatch.setattr(BaseTriplanePipeline, "__call__", None)
    study_conditioning(config)
    assert json.loads((config.output_dir / "table.json").read_text()) == rows
    assert "| epsilon | " in capsys.readouterr().out
    config.held_out = ("validation",)
    with pytest.raises(UserError, match="another held_out|held_out"):
        study_conditioning(config)


def test_the_truth_scores_best_and_resizing_keeps_the_means_detail(tiny_fitted):
    train, names = ["s0", "s1", "s2"], ["s3", "held"]
    strangers = Strangers(tiny_fitted, None, train, names, 1, 16)
    perfect = strangers.measures(strangers.truth, strangers.truth[:1], 2.0)
    assert perfect["plane_error"] == 0 and perfect["seconds"] == 2.0
    assert perfect["psnr"] > 60 and perfect["ssim"] > 0.999
    assert perfect["spread"] == pytest.approx(1, abs=1e-5)
    # A sample that is as far from the truth as from the other sample has the variety 1.
    off = torch.randn(strangers.truth.shape, generator=torch.Generator().manual_seed(0)) * 0.01
    shifted = strangers.truth + off
    found = strangers.measures(shifted, strangers.truth)
    assert found["variety"] == pytest.approx(1, abs=1e-4) and 0 < found["plane_error"] < 1
    # The mean itself survives shrinking; without its detail it would not.
    small = shrink_planes(strangers.mean, 8)[None]
    assert torch.allclose(strangers.resized(small)[0], strangers.mean, atol=1e-5)
    assert (enlarged(small, 16)[0] - strangers.mean).abs().max() > 0.01
