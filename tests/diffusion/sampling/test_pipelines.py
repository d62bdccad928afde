"""Pipelines: guidance, seeds, batches, saving."""

import copy

import pytest
import torch

from diffusion.conditioning.features import PortraitFeatures
from diffusion.networks import PlaneNormalization, TriplaneUNet, TriplaneUpsampler
from diffusion.sampling.pipelines import (
    BaseTriplanePipeline,
    UpsampleTriplanePipeline,
    guided,
    item_generators,
)
from diffusion.sampling.predictions import predicted_start
from diffusion.sampling.schedules import make_scheduler
from diffusion.sampling.solvers import SamplerConfig, draw_noise
from renderer.triplane import rollout
from runtime.errors import UserError
from tests.diffusion import tiny
from tests.diffusion.tiny import portraits

CONDITION = tiny.CONDITION | {"token_width": 16}


def perturb(model):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture(scope="module")
def base() -> BaseTriplanePipeline:
    torch.manual_seed(0)
    model = TriplaneUNet(
        plane_channels=4,
        plane_size=8,
        width=8,
        multipliers=(1, 2),
        blocks=1,
        attention_sizes=(8, 4),
        **CONDITION,
    )
    pipeline = BaseTriplanePipeline(
        perturb(model),
        make_scheduler("cosine_light", 1000, "epsilon"),
        PlaneNormalization.identity(4),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def upsampler() -> UpsampleTriplanePipeline:
    torch.manual_seed(0)
    model = TriplaneUpsampler(
        plane_channels=4,
        plane_size=16,
        low_res_size=8,
        width=8,
        multipliers=(1, 2),
        blocks=(1, 1),
        attention_sizes=(8,),
        **CONDITION,
    )
    pipeline = UpsampleTriplanePipeline(
        perturb(model), make_scheduler("sigmoid", 100, "sample"), PlaneNormalization.identity(4)
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_planes_have_the_house_layout_and_range(base):
    planes = base(portraits(2))
    assert planes.shape == (2, 3, 4, 8, 8) and planes.dtype == torch.float32
    assert torch.isfinite(planes).all() and planes.abs().max() <= 1
    assert planes.std() > 0.01


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1.3])
def test_samples_do_not_depend_on_the_batch(base, eta, scale):
    features = portraits(3)
    settings = {"sampler": SamplerConfig(4, "ddim", eta=eta, guidance_scale=scale)}
    together = base(features, seed=[7, 8, 9], **settings)
    for i, seed in enumerate((7, 8, 9)):
        alone = base(features[i], seed=[seed], **settings)
        assert torch.allclose(alone[0], together[i], atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.01


def test_one_seed_gives_every_sample_its_own_noise_and_repeats(base):
    same = PortraitFeatures.stack([portraits(1)] * 2)
    first = base(same, seed=3, sampler=SamplerConfig(2))
    assert (first[0] - first[1]).abs().max() > 0.01
    assert torch.equal(first, base(same, seed=3, sampler=SamplerConfig(2)))
    assert not torch.equal(first, base(same, seed=4, sampler=SamplerConfig(2)))
    with pytest.raises(ValueError, match="2 seeds for a batch of 3"):
        base(portraits(3), seed=[1, 2])


def calls_to(model, monkeypatch) -> list[bool]:
    """Records for every pass whether the model had a portrait."""
    seen: list[bool] = []
    original = model.forward

    def forward(x, timestep, *others, **named):
        seen.append(others[-1] is not None)
        return original(x, timestep, *others, **named)

    monkeypatch.setattr(model, "forward", forward)
    return seen


@pytest.mark.parametrize(
    ("scale", "expected"), [(1.0, [True]), (0.0, [False]), (1.3, [True, False])]
)
def test_guidance_runs_only_the_passes_it_needs(base, monkeypatch, scale, expected):
    seen = calls_to(base.unet, monkeypatch)
    base(portraits(2), sampler=SamplerConfig(1, guidance_scale=scale))
    assert seen == expected


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_guidance_equals_its_formula(base, scale):
    """One step from pure noise: two passes combined by hand give the same planes."""
    features, unet = portraits(2), base.unet
    with torch.no_grad():
        noise = draw_noise((2, 4, 8, 24), item_generators(0, 2))
        seen, unseen = (unet(noise, 999, each)[:, :4] for each in (features, None))
        mixed = seen * scale + unseen * (1 - scale)
        bar = base.scheduler.alphas_cumprod[999].double()
        kind = base.scheduler.config["prediction_type"]
        expected = predicted_start(kind, mixed, noise, bar.sqrt(), (1 - bar).sqrt(), 1.0)
        expected = expected.clamp(-1, 1)
    planes = base(features, sampler=SamplerConfig(1, "ddim", guidance_scale=scale))
    assert torch.allclose(rollout(planes), expected, atol=1e-4)


def test_edm_of_a_network_that_says_nothing_samples_the_gaussian(base):
    """Preconditioning alone is the exact denoiser of Gaussian data: F = 0 keeps their spread."""
    deviation = 0.3
    silent = copy.deepcopy(base.unet)
    torch.nn.init.zeros_(silent.unet.output.weight)
    torch.nn.init.zeros_(silent.unet.output.bias)
    normalization = PlaneNormalization(4, plane_size=1, spread=deviation)
    normalization.std.data.fill_(deviation)  # values are planes
    scheduler = make_scheduler("cosine_light", 1000, "edm", clip_range=8 * deviation)
    pipeline = BaseTriplanePipeline(silent, scheduler, normalization)
    pipeline.set_progress_bar_config(disable=True)
    planes = pipeline(None, seed=list(range(24)), sampler=SamplerConfig(16))
    assert float(planes.std()) == pytest.approx(deviation, rel=0.04)


def test_guidance_acts_in_its_interval_only(base, monkeypatch):
    seen = calls_to(base.unet, monkeypatch)
    sampler = SamplerConfig(4, "ddim", "trailing", guidance_scale=2.0, guidance_interval=(0.3, 0.8))
    base(portraits(1), sampler=sampler)  # timesteps 999, 749, 499, 249
    assert seen == [True, True, False, True, False, True]


def test_guidance_keeps_the_conditional_variance():
    seen, unseen = torch.tensor([[2.0, 5.0]]), torch.tensor([[1.0, 7.0]])
    out = guided(seen[..., None, None], unseen[..., None, None], 3.0, channels=1)
    assert out.flatten().tolist() == [4.0, 5.0]


def test_ancestral_sampling_uses_the_learned_variance(base):
    """With the variance's place pinned to either end the samples differ."""
    samples = []
    for place in (-1.0, 1.0):
        unet = copy.deepcopy(base.unet)
        torch.nn.init.zeros_(unet.unet.output.weight[4:])
        unet.unet.output.bias.data[4:] = place
        pipeline = BaseTriplanePipeline(unet, base.scheduler, base.normalization)
        pipeline.set_progress_bar_config(disable=True)
        samples.append(pipeline(portraits(1), sampler=SamplerConfig(10, "ddpm", "leading")))
    assert all(torch.isfinite(each).all() for each in samples)
    assert (samples[0] - samples[1]).abs().max() > 1e-3


def test_without_a_portrait_there_are_as_many_samples_as_seeds(base):
    assert base(None, seed=[1, 2, 3], sampler=SamplerConfig(1)).shape[0] == 3


def test_saved_pipelines_load_and_repeat(base, upsampler, tmp_path):
    features = portraits(2)
    base.save_pretrained(tmp_path / "base")
    loaded = BaseTriplanePipeline.from_pretrained(tmp_path / "base")
    assert isinstance(loaded.unet, TriplaneUNet)
    assert torch.equal(loaded(features), base(features))
    low_res = base(features)
    upsampler.save_pretrained(tmp_path / "upsampler")
    loaded = UpsampleTriplanePipeline.from_pretrained(tmp_path / "upsampler")
    assert loaded.scheduler.config["num_train_timesteps"] == 100
    assert torch.equal(loaded(low_res, features), upsampler(low_res, features))


def test_upsampler_takes_any_batch_and_follows_its_planes(base, upsampler):
    features = portraits(2)
    low_res = base(features)
    planes = upsampler(low_res, features, seed=[4, 5])
    assert planes.shape == (2, 3, 4, 16, 16) and planes.abs().max() <= 1
    alone = upsampler(low_res[1:], features[1], seed=[5])
    assert torch.allclose(alone[0], planes[1], atol=1e-4)
    other = upsampler(-low_res, features, seed=[4, 5])
    assert (other - planes).abs().max() > 0.01
    with pytest.raises(ValueError, match="1 low-resolution triplanes but 2 portraits"):
        upsampler(low_res[:1], features)


def test_upsampler_visits_its_own_timesteps(upsampler, monkeypatch):
    """Ten steps at T = 100 lie in 0..99, as in training."""
    steps = []
    original = upsampler.unet.forward
    monkeypatch.setattr(
        upsampler.unet,
        "forward",
        lambda x, t, *rest: steps.append(int(t)) or original(x, t, *rest),
    )
    sampler = SamplerConfig(10, "ddim", "leading")
    upsampler(torch.zeros(1, 3, 4, 8, 8), portraits(1), sampler=sampler)
    assert steps == list(range(90, -1, -10))


def test_a_regression_takes_one_pass(base, monkeypatch):
    pipeline = BaseTriplanePipeline(base.unet, None, base.normalization)
    seen = calls_to(base.unet, monkeypatch)
    with torch.no_grad():
        expected = base.unet(torch.zeros(2, 4, 8, 24), 0, portraits(2))[:, :4]
    seen.clear()
    planes = pipeline(portraits(2), seed=5)
    assert seen == [True]
    assert torch.allclose(rollout(planes), expected.clamp(-1, 1), atol=1e-6)


def test_wrong_inputs_are_refused(base):
    features = portraits(1)
    large = PortraitFeatures(torch.zeros(1, 4, 16, 16), features.levels)
    with pytest.raises(ValueError, match="image size the model was trained with"):
        base(large)
    with pytest.raises(UserError, match="steps is 2000: this model has 1000"):
        base(features, sampler=SamplerConfig(2000))
    with pytest.raises(UserError, match="eta is -1"):
        base(features, sampler=SamplerConfig(eta=-1))
