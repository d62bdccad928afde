"""A linear start: ridge regression in closed form, and what it expects of people left out."""

import numpy as np
import pytest
import torch

from diffusion.conditioning.features import PortraitFeatures
from diffusion.sampling.model_files import load_pipeline
from diffusion.sampling.pipelines import BaseTriplanePipeline
from diffusion.training.linear_start import SHARES, LinearStart, ridge_strength
from diffusion.training.train_base import BaseTraining, TrainBaseConfig, train_base
from runtime.errors import UserError
from tests.diffusion.tiny import tiny_base

CPU = torch.device("cpu")


def people(count: int) -> tuple[list[str], list[PortraitFeatures], list[torch.Tensor]]:
    """Portraits of 6 numbers each, and planes that depend on them linearly, with noise."""
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(count, 6, generator=random)
    looks = torch.randn(6, 4 * 64, generator=random)
    planes = torch.randn(6, 2 * 4 * 12, generator=random)
    names, features, values = [], [], []
    for index in range(count):
        latent = (hidden[index] @ looks).reshape(1, 4, 8, 8)
        levels = tuple(torch.full((1, 1, 8, 8), float(i)) for i in range(3))
        names.append(f"p{index}")
        features.append(PortraitFeatures(latent, levels))
        noise = 0.05 * torch.randn(2, 4, 12, generator=random)
        values.append((hidden[index] @ planes).reshape(2, 4, 12) + noise + 3)
    return names, features, values


def test_strangers_are_expected_as_they_are():
    names, features, values = people(40)
    start = LinearStart(names[:30], features[:30], values[:30])
    found = start.expectation(PortraitFeatures.stack(features[30:]))
    truth = torch.stack(values[30:])
    spread = truth.std(dim=0).mean()
    assert found.shape == truth.shape
    assert (found - truth).square().mean().sqrt() < 0.1 * spread
    with pytest.raises(ValueError, match="learnt from 448"):
        start.expectation(PortraitFeatures(features[0].latent[:, :2], features[0].levels))


def test_training_people_are_expected_by_those_of_other_shares():
    names, features, values = people(24)
    start = LinearStart(names, features, values)
    position = 5
    found = start(names[position : position + 1], features[position])[0]
    # By numpy: least squares with the penalty written as further rows.
    vectors = torch.stack([each.latent.flatten() for each in features]).double().numpy()
    seen = (vectors - vectors.mean(axis=0)) / vectors.std(axis=0, ddof=1)
    planes = torch.stack(values).flatten(1).double().numpy()
    wanted = planes - planes.mean(axis=0)
    strength = ridge_strength(torch.from_numpy(seen), torch.from_numpy(wanted))
    others = [i for i in range(24) if i % SHARES != position % SHARES]
    rows = np.vstack([seen[others], np.sqrt(strength) * np.eye(seen.shape[1])])
    asked = np.vstack([wanted[others], np.zeros((seen.shape[1], wanted.shape[1]))])
    weight = np.linalg.lstsq(rows, asked, rcond=None)[0]
    expected = seen[position] @ weight + planes.mean(axis=0)
    assert np.allclose(found.flatten().numpy(), expected, atol=1e-3)
    known = start.expectation(features[position])[0]
    assert (known - values[position]).norm() < (found - values[position]).norm()
    # Strangers get the regression on everybody.
    assert torch.allclose(start(["stranger"], features[position])[0], known, atol=1e-5)


@pytest.mark.parametrize("objective", ["diffusion", "regression"])
def test_a_model_completes_it(tiny_fitted, tiny_features, tiny_views, tmp_path, objective):
    config = TrainBaseConfig(
        output_dir=tmp_path,
        triplanes=tiny_fitted.folder,
        features=tiny_features.folder,
        root=tiny_views.root,
        plane_size=8,
        num_timesteps=20,
        steps=2,
        batch_size=2,
        sample_every=0,
        device="cpu",
        prediction_type="sample",
        objective=objective,
        linear_start=True,
        model=tiny_base(),
    )
    training = BaseTraining(config)
    batch = training.dataset[0]
    features = training.portraits.features(batch.portrait)
    start = training.start_of(batch, features)
    known = training.expectation(features)
    truth = training.values_of(batch.planes)
    assert (known - truth).norm() < (start - truth).norm()
    train_base(config)
    pipeline, _ = load_pipeline(BaseTriplanePipeline, tmp_path, CPU)
    assert pipeline.unet.config["guided"] and (pipeline.scheduler is None) == (
        objective == "regression"
    )
    given = tiny_features.load("held")
    expected = pipeline.expected_values(given, 1)
    assert torch.allclose(expected, training.expectation(given), atol=1e-6)
    assert pipeline(given).shape == (1, 3, 8, 8, 8)
    assert torch.allclose(
        pipeline.expected_values(None, 2)[1], pipeline.expectation.mean, atol=1e-6
    )


def test_two_starts_are_refused(tmp_path):
    config = TrainBaseConfig(
        output_dir=tmp_path, triplanes=tmp_path, features=tmp_path, linear_start=True
    )
    config.start = tmp_path
    with pytest.raises(UserError, match="one start"):
        config.check()
    config.start, config.normalization = None, "none"
    with pytest.raises(UserError, match="a start needs normalization"):
        config.check()
