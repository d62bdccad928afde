"""Differences from the mean triplane: there and back, in training data, pipelines and runs."""

from pathlib import Path

import pytest
import torch

from diffusion.conditioning.feature_set import FeatureSet
from diffusion.networks import MeanTriplane, TriplaneUNet, TriplaneUpsampler
from diffusion.sampling.pipelines import BaseTriplanePipeline, UpsampleTriplanePipeline
from diffusion.sampling.schedules import make_scheduler
from diffusion.training.pairs import PairedSet
from renderer.fitted_set import FittedSet
from renderer.triplane import resize_planes

NAMES = ["s0", "s1", "s2"]


@pytest.fixture
def triplanes() -> torch.Tensor:
    """Five that share their fine detail and differ smoothly, with another spread per channel."""
    random = torch.Generator().manual_seed(0)
    shared = 0.3 * torch.randn(3, 4, 16, 16, generator=random)
    smooth = resize_planes(torch.rand(5, 3, 4, 4, 4, generator=random) * 2 - 1, 16)
    spread = torch.tensor([0.01, 0.02, 0.05, 0.1])[:, None, None]
    return (shared + spread * smooth).clamp(-1, 1)


def test_mean_and_spread_are_the_samples(triplanes):
    mean = MeanTriplane.of(triplanes, 16)
    assert torch.allclose(mean.mean, triplanes.double().mean(0).float(), atol=1e-6)
    centred = triplanes.double() - triplanes.double().mean(0)
    spread = centred.square().mean(dim=(0, 1, 3, 4)).sqrt().float()
    assert torch.allclose(mean.scale, 4 * spread, rtol=1e-3)


def test_there_and_back(triplanes):
    mean = MeanTriplane.of(triplanes, 16)
    differences = mean.differences(triplanes)
    assert differences.abs().max() <= 1
    assert torch.allclose(mean.planes(differences), triplanes, atol=1e-6)
    far = mean.differences(triplanes + 1)
    assert (far == 1).all()


def test_shrinking_differences_keeps_the_shared_detail(triplanes):
    """Why it is there: what the triplanes share survives a round trip through small planes."""
    mean = MeanTriplane.of(triplanes, 16)
    through = mean.planes(resize_planes(resize_planes(mean.differences(triplanes), 8), 16))
    plain = resize_planes(resize_planes(triplanes, 8), 16)
    assert (through - triplanes).norm() < 0.2 * (plain - triplanes).norm()


def test_small_planes_have_the_small_mean(triplanes):
    mean = MeanTriplane.of(triplanes, 16)
    small = mean.differences(resize_planes(triplanes, 8))
    assert torch.allclose(small, resize_planes(mean.differences(triplanes), 8), atol=1e-4)


def test_no_triplanes():
    with pytest.raises(ValueError, match="no triplanes"):
        MeanTriplane.of([], 8)


def test_pairs_give_differences(tiny_fitted: FittedSet, tiny_features: FeatureSet):
    plain = PairedSet(tiny_fitted, tiny_features, NAMES, (8, 16))
    pairs = PairedSet(tiny_fitted, tiny_features, NAMES, (8, 16), subtract_mean=True)
    assert pairs.mean is not None
    for name in NAMES:
        # Balls differ in few texels only, so some of those differences are rare ones: clipped.
        inside = pairs.mean.differences(plain.true_planes(name)[None])[0].abs() < 1
        assert inside.float().mean() > 0.9
        error = pairs.true_planes(name) - plain.true_planes(name)
        assert error[inside].abs().max() < 1e-5
        assert (pairs.planes(name)[0].abs() <= 1).all()
    centred = sum(pairs.planes(name)[1] for name in NAMES)
    assert (centred.abs() < 1e-4).float().mean() > 0.9


def test_a_guide_is_taken_when_and_only_when_the_model_has_one():
    shape = {"plane_channels": 4, "plane_size": 16, "width": 8, "head_channels": 8, **PORTRAIT}
    layers = {"multipliers": (1, 2), "attention_sizes": (8,), "blocks": 1}
    x = torch.zeros(2, 4, 16, 48)
    guided = TriplaneUNet(**shape, **layers, mean_guide=True)
    torch.nn.init.normal_(guided.unet.output.weight)
    guides = torch.randn(2, 1, 4, 16, 48)
    first, second = (guided(x, 5, guide=guide) for guide in guides)
    assert first.shape == (2, 8, 16, 48) and not torch.allclose(first, second)
    with pytest.raises(ValueError, match="got none"):
        guided(x, 5)
    with pytest.raises(ValueError, match="takes no guide"):
        TriplaneUNet(**shape, **layers)(x, 5, guide=guides[0])


PORTRAIT = {
    "latent_size": 8,
    "latent_patch": 4,
    "latent_width": 8,
    "feature_channels": (8, 8, 16),
    "feature_sizes": (32, 16, 8),
    "token_width": 8,
}


@pytest.mark.parametrize("prediction", [0.0, 0.5])
def test_pipelines_answer_in_planes(triplanes, tmp_path: Path, prediction: float):
    """A model that always predicts one difference samples the mean plus that difference."""
    mean = MeanTriplane.of(triplanes, 16)
    expected = mean.planes(torch.full((1, 3, 4, 16, 16), prediction))[0]
    shape = {"plane_channels": 4, "plane_size": 16, "width": 8, "head_channels": 8, **PORTRAIT}
    layers = {"multipliers": (1, 2), "attention_sizes": (8,)}
    base = TriplaneUNet(**shape, **layers, blocks=1, learned_variance=False, mean_guide=True)
    upsampler = TriplaneUpsampler(**shape, **layers, low_res_size=8, blocks=(1, 1))
    for unet in (base, upsampler):
        for parameter in unet.parameters():
            torch.nn.init.zeros_(parameter)
        unet.unet.output.bias.data.fill_(prediction)
    for kind, unet in ((BaseTriplanePipeline, base), (UpsampleTriplanePipeline, upsampler)):
        pipeline = kind(unet, make_scheduler("sigmoid", 100, "sample"), mean)
        pipeline.save_pretrained(tmp_path / kind.__name__)
        loaded = kind.from_pretrained(tmp_path / kind.__name__)
        low = (torch.zeros(1, 3, 4, 8, 8),) if kind is UpsampleTriplanePipeline else ()
        for each in (pipeline, loaded):
            each.set_progress_bar_config(disable=True)
            planes = each(*low, None, guidance_scale=1, num_inference_steps=5, seed=3)
            assert torch.allclose(planes[0], expected, atol=1e-4)
