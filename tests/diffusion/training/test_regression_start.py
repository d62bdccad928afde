"""A regression of the expected triplane, and a diffusion of what it lacks."""

from pathlib import Path

import pytest
import torch

from diffusion.conditioning.feature_set import FeatureSet
from diffusion.sampling.pipelines import BaseTriplanePipeline
from diffusion.sampling.sample_set import load_pipeline
from diffusion.sampling.solvers import SamplerConfig
from diffusion.training.train_base import TrainBaseConfig, train_base
from renderer.fitted_set import FittedSet
from renderer.triplane import shrink_planes
from runtime.errors import UserError
from tests.diffusion.tiny import tiny_base

NAMES = ["s0", "s1", "s2", "s3"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def settings(tiny_fitted, tiny_features, tiny_views) -> dict:
    return {
        "triplanes": tiny_fitted.folder,
        "features": tiny_features.folder,
        "root": tiny_views.root,
        "plane_size": 8,
        "num_timesteps": 50,
        "steps": 80,
        "batch_size": 4,
        "learning_rate": 2e-3,
        "warmup_steps": 10,
        "decay": "cosine",
        "ema_decay": 0.0,
        "log_every": 50,
        "save_every": 200,
        "sample_every": 0,
        "device": "cpu",
        "model": tiny_base(width=16, latent_width=16, token_width=16, positions=True),
    }


@pytest.fixture(scope="module")
def regression(settings, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("regression")
    train_base(TrainBaseConfig(output_dir=folder, objective="regression", **settings))
    return folder


def error(pipeline, settings, **how) -> float:
    """Mean squared error of training people's planes, as a share of their variance."""
    fitted, features = (
        FittedSet.open(settings["triplanes"]),
        FeatureSet.open(settings["features"]),
    )
    truth = torch.stack([shrink_planes(fitted.load(name), 8) for name in NAMES])
    found = torch.cat([pipeline(features.load(name), **how) for name in NAMES])
    spread = (truth - truth.mean(dim=0)).square().mean()
    return float((found - truth).square().mean() / spread)


def test_a_regression_gives_the_expected_triplane_in_one_pass(settings, regression):
    pipeline, trained = load_pipeline(BaseTriplanePipeline, regression, CPU)
    assert pipeline.scheduler is None and trained["subjects"] == 4
    assert error(pipeline, settings) < 0.4  # the mean triplane has 1
    one = pipeline(FeatureSet.open(settings["features"]).load("s0"), seed=1)
    two = pipeline(FeatureSet.open(settings["features"]).load("s0"), seed=2)
    assert torch.equal(one, two)


def test_a_diffusion_starts_from_it_and_gets_closer(settings, regression, tmp_path):
    config = TrainBaseConfig(
        output_dir=tmp_path, start=regression, prediction_type="sample", **settings
    )
    train_base(config)
    pipeline, _ = load_pipeline(BaseTriplanePipeline, tmp_path, CPU)
    assert pipeline.expectation is not None and pipeline.unet.config["guided"]
    before, _ = load_pipeline(BaseTriplanePipeline, regression, CPU)
    for ours, theirs in zip(
        pipeline.expectation.parameters(), before.unet.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)
    sampled = error(pipeline, settings, sampler=SamplerConfig(8))
    assert sampled < error(before, settings)


def test_starts_that_do_not_fit_are_refused(settings, regression, tmp_path):
    def refuses(words: str, **changes) -> None:
        with pytest.raises(UserError, match=words):
            train_base(TrainBaseConfig(output_dir=tmp_path / "x", **(settings | changes)))

    train_base(TrainBaseConfig(output_dir=tmp_path / "diffusion", **(settings | {"steps": 1})))
    refuses("is no regression", start=tmp_path / "diffusion")
    refuses("residuals are small", start=regression, normalization="none")
    refuses("neither learned_variance nor start", start=regression, objective="regression")
    refuses("which a regression doesn't have", objective="regression", condition_drop=0.1)
    refuses("holds no model", start=tmp_path)
