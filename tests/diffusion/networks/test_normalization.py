"""Normalised planes: there and back, in training data and in pipelines."""

from pathlib import Path

import pytest
import torch

from diffusion.conditioning.feature_set import FeatureSet
from diffusion.data.pairs import PairedSet
from diffusion.data.portraits import StoredPortraits
from diffusion.networks import PlaneNormalization, TriplaneUNet, TriplaneUpsampler
from diffusion.sampling.pipelines import BaseTriplanePipeline, UpsampleTriplanePipeline
from diffusion.sampling.schedules import make_scheduler
from diffusion.sampling.solvers import SamplerConfig
from renderer.fitted_set import FittedSet
from renderer.triplane import resize_planes, rollout, unroll

NAMES = ["s0", "s1", "s2"]
PORTRAIT = {
    "latent_size": 8,
    "latent_patch": 4,
    "latent_width": 8,
    "feature_channels": (8, 8, 16),
    "feature_sizes": (32, 16, 8),
    "token_width": 8,
}
SHAPE = {"plane_channels": 4, "plane_size": 16, "width": 8, "head_channels": 8, **PORTRAIT}
LAYERS = {"multipliers": (1, 2), "attention_sizes": (8,)}


@pytest.fixture
def triplanes() -> torch.Tensor:
    """Five that share their fine detail and differ smoothly, with another spread per channel."""
    random = torch.Generator().manual_seed(0)
    shared = 0.3 * torch.randn(3, 4, 16, 16, generator=random)
    smooth = resize_planes(torch.rand(5, 3, 4, 4, 4, generator=random) * 2 - 1, 16)
    spread = torch.tensor([0.01, 0.02, 0.05, 0.1])[:, None, None]
    return (shared + spread * smooth).clamp(-1, 1)


@pytest.mark.parametrize("name", ["channel", "mean"])
def test_values_have_no_mean_and_one_spread(triplanes, name):
    normalization = PlaneNormalization.of(triplanes, 16, name, spread=0.5)
    values = normalization.normalized(triplanes)
    centre = values.mean(dim=(0, 3, 4) if name == "channel" else 0)
    assert centre.abs().max() < 1e-4
    spread = values.square().mean(dim=(0, 1, 3, 4)).sqrt()
    assert torch.allclose(spread, torch.full((4,), 0.5), rtol=1e-3)
    assert normalization.has_mean_triplane == (name == "mean")


@pytest.mark.parametrize("name", ["channel", "mean"])
def test_there_and_back_even_far_from_the_training_triplanes(triplanes, name):
    normalization = PlaneNormalization.of(triplanes, 16, name)
    back = normalization.planes(normalization.normalized(triplanes))
    assert torch.allclose(back, triplanes, atol=1e-6)
    far = (triplanes + 0.5).clamp(-1, 1)  # fifty standard deviations away in the first channel
    values = normalization.normalized(far)
    assert values.abs().max() > (10 if name == "mean" else 1)
    assert torch.allclose(normalization.planes(values), far, atol=1e-5)


def test_identity_leaves_planes_as_they_are(triplanes):
    same = PlaneNormalization.identity(4)
    assert torch.equal(same.normalized(triplanes), triplanes)
    assert torch.equal(same.planes(triplanes), triplanes)


def test_residuals_are_scaled_channel_by_channel(triplanes):
    normalization = PlaneNormalization.of(triplanes, 16, "channel")
    values = rollout(normalization.normalized(triplanes))
    scale = torch.tensor([0.01, 0.1, 1.0, 3.0])[:, None, None]
    start = values - scale * torch.randn(values.shape, generator=torch.Generator().manual_seed(1))
    normalization.measure_residuals(iter(values - start))
    residual = normalization.residual(values, start)
    assert torch.allclose(residual.std(dim=(0, 2, 3)), torch.tensor(0.5), rtol=0.05)
    assert torch.allclose(normalization.completed(residual, start), values, atol=1e-5)


def test_shrinking_differences_keeps_the_shared_detail(triplanes):
    """Why the mean triplane: what triplanes share survives a round trip through small planes."""
    mean = PlaneNormalization.of(triplanes, 16, "mean")
    through = mean.planes(resize_planes(resize_planes(mean.normalized(triplanes), 8), 16))
    plain = resize_planes(resize_planes(triplanes, 8), 16)
    assert (through - triplanes).norm() < 0.2 * (plain - triplanes).norm()


def test_small_planes_have_the_small_mean(triplanes):
    mean = PlaneNormalization.of(triplanes, 16, "mean")
    small = mean.normalized(resize_planes(triplanes, 8))
    assert torch.allclose(small, resize_planes(mean.normalized(triplanes), 8), atol=1e-3)


def test_no_triplanes():
    with pytest.raises(ValueError, match="no triplanes"):
        PlaneNormalization.of([], 8, "mean")


def test_pairs_give_normalised_values(tiny_fitted: FittedSet, tiny_features: FeatureSet):
    portraits = StoredPortraits(tiny_features, 1.0)
    pairs = PairedSet(tiny_fitted, portraits, NAMES, (8, 16), normalization="mean")
    for name in NAMES:
        small, large = pairs.values(name)
        assert small.shape == (1, 8, 8, 24) and large.shape == (1, 8, 16, 48)
        planes = pairs.normalization.planes(unroll(large))[0]
        assert torch.allclose(planes, tiny_fitted.load(name), atol=1e-5)
    centred = sum(pairs.values(name)[1] for name in NAMES)
    assert centred.abs().max() < 1e-3
    held_out = pairs.values("held")[1]
    assert torch.isfinite(held_out).all()


def test_a_guide_is_taken_when_and_only_when_the_model_has_one():
    x = torch.zeros(2, 4, 16, 48)
    guided = TriplaneUNet(**SHAPE, **LAYERS, blocks=1, guided=True)
    torch.nn.init.normal_(guided.unet.output.weight)
    guides = torch.randn(2, 1, 4, 16, 48)
    first, second = (guided(x, 5, guide=guide) for guide in guides)
    assert first.shape == (2, 8, 16, 48) and not torch.allclose(first, second)
    with pytest.raises(ValueError, match="got none"):
        guided(x, 5)
    with pytest.raises(ValueError, match="takes no guide"):
        TriplaneUNet(**SHAPE, **LAYERS, blocks=1)(x, 5, guide=guides[0])


def constant(model, value: float):
    """A network that always answers one value."""
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    model.unet.output.bias.data.fill_(value)
    return model


@pytest.mark.parametrize("value", [0.0, 0.5])
@pytest.mark.parametrize("regression", [False, True])
def test_pipelines_answer_in_planes(triplanes, tmp_path: Path, value: float, regression: bool):
    """A model that always predicts one value samples the mean plus that value, scaled."""
    mean = PlaneNormalization.of(triplanes, 16, "mean")
    expected = mean.planes(torch.full((1, 3, 4, 16, 16), value))[0]
    base = TriplaneUNet(**SHAPE, **LAYERS, blocks=1, learned_variance=False, guided=True)
    upsampler = TriplaneUpsampler(**SHAPE, **LAYERS, low_res_size=8, blocks=(1, 1))
    scheduler = None if regression else make_scheduler("sigmoid", 100, "sample", 4.0)
    for kind, unet in ((BaseTriplanePipeline, base), (UpsampleTriplanePipeline, upsampler)):
        pipeline = kind(constant(unet, value), scheduler, mean)
        pipeline.save_pretrained(tmp_path / kind.__name__)
        loaded = kind.from_pretrained(tmp_path / kind.__name__)
        low = (torch.zeros(1, 3, 4, 8, 8),) if kind is UpsampleTriplanePipeline else ()
        for each in (pipeline, loaded):
            each.set_progress_bar_config(disable=True)
            planes = each(*low, None, sampler=SamplerConfig(steps=5), seed=3)
            assert torch.allclose(planes[0], expected, atol=1e-4)


def test_a_residual_upsampler_starts_as_a_resize(triplanes):
    normalization = PlaneNormalization.of(triplanes, 16, "channel")
    normalization.measure_residuals([torch.ones(1, 4, 16, 48) * 0.1])
    unet = TriplaneUpsampler(**SHAPE, **LAYERS, low_res_size=8, blocks=(1, 1), residual=True)
    small = resize_planes(triplanes, 8)
    flat = small.flatten(0, 1)
    resized = torch.nn.functional.interpolate(flat, (16, 16), mode="bicubic", align_corners=True)
    pipeline = UpsampleTriplanePipeline(unet, None, normalization)
    planes = pipeline(small, None)
    assert torch.allclose(planes, resized.unflatten(0, (5, 3)).clamp(-1, 1), atol=1e-5)


def test_a_start_is_completed_by_the_scaled_residual(triplanes, tmp_path: Path):
    """The base model on top of a regression: expected values plus what they lack."""
    normalization = PlaneNormalization.of(triplanes, 16, "channel")
    normalization.measure_residuals([torch.full((1, 4, 16, 48), 0.2)])
    shape = {**SHAPE, **LAYERS, "blocks": 1, "learned_variance": False}
    expectation = constant(TriplaneUNet(**shape), 0.3)
    unet = constant(TriplaneUNet(**shape, guided=True), 0.5)
    scheduler = make_scheduler("sigmoid", 100, "sample", 4.0)
    pipeline = BaseTriplanePipeline(unet, scheduler, normalization, expectation)
    pipeline.save_pretrained(tmp_path)
    loaded = BaseTriplanePipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    # A value of 0.5 is one standard deviation of the residuals, 0.2.
    expected = normalization.planes(torch.full((1, 3, 4, 16, 16), 0.5))
    planes = loaded(None, sampler=SamplerConfig(steps=5))
    assert torch.allclose(planes, expected, atol=1e-4)
