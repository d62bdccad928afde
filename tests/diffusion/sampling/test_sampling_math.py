"""The samplers against closed forms: exact denoisers of a Gaussian, and published equations."""

import math

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from diffusion.sampling.pipelines import item_generators
from diffusion.sampling.predictions import predicted_start
from diffusion.sampling.schedules import alphas_cumprod, betas, make_scheduler
from diffusion.sampling.solvers import (
    SamplerConfig,
    Solver,
    chosen_timesteps,
    draw_noise,
    kept_deviation,
)
from runtime.config import check_settings
from runtime.errors import UserError

MEAN, STD = 0.1, 0.25
SHAPE = (4, 4, 8, 24)


def gaussian_denoiser(alphas: torch.Tensor, mean: float = MEAN, std: float = STD):
    """E[x₀ | x_t] for x₀ ~ N(mean, std²)."""

    def denoise(x, timestep):
        a = float(alphas[timestep])
        gain = math.sqrt(a) * std**2 / (a * std**2 + 1 - a)
        return mean + gain * (x - math.sqrt(a) * mean), None

    return denoise


def draw(alphas, config, denoise=None, seed: int = 0) -> torch.Tensor:
    generators = item_generators(seed, SHAPE[0])
    noise = draw_noise(SHAPE, generators)
    return Solver(alphas, config).sample(denoise or gaussian_denoiser(alphas), noise, generators)


@pytest.mark.parametrize(
    ("sampler", "eta", "steps"),
    [("ddim", 0, 1000), ("ddim", 1, 1000), ("ddpm", 0, 1000), ("dpm++", 0, 40), ("dpm++", 1, 40)]
    + [("heun", 0, 40)],
)
def test_exact_denoiser_reproduces_the_gaussian(sampler, eta, steps):
    # A fine schedule: its first timestep is nearly clean, so that nothing of the variance is lost
    # when the last step gives the mean.
    alphas = alphas_cumprod("cosine_light", 10_000)
    samples = draw(alphas, SamplerConfig(steps, sampler, "log_snr", eta))
    assert samples.dtype == torch.float32
    # 3,072 values: the standard errors are 0.0045 and 0.0032.
    assert float(samples.mean()) == pytest.approx(MEAN, abs=0.014)
    assert float(samples.std()) == pytest.approx(STD, abs=0.014)


@pytest.mark.parametrize("std", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("schedule", ["cosine_light", "sigmoid"])
def test_the_default_keeps_the_spread(schedule, std):
    """95 % of the standard deviation in at most 20 steps, at T = 1000.

    The one exception is the last level of `sigmoid`, where planes of a spread of 0.25 still drown
    in noise: 90 % is all that any sampler could keep (`test_no_sampler_...`).
    """
    config = SamplerConfig()
    assert config.steps <= 20
    kept = kept_deviation(alphas_cumprod(schedule, 1000), config, std)
    assert kept > (0.88 if (schedule, std) == ("sigmoid", 0.25) else 0.95)
    assert kept < 1.05


def test_no_sampler_keeps_what_the_schedule_has_lost():
    """`sigmoid` at T = 100 ends at log-SNR 1.7: the last estimate is a mean, whatever led there."""
    alphas = alphas_cumprod("sigmoid", 100)
    best = [
        kept_deviation(alphas, SamplerConfig(100, sampler, "log_snr"), STD)
        for sampler in ("ddim", "dpm++")
    ]
    assert max(best) < 0.53


def test_ten_leading_steps_lose_half_of_it():
    """What the published way of sampling returns, and the same model sampled by the default."""
    alphas = alphas_cumprod("cosine_light", 1000)
    published = SamplerConfig(10, "ddim", "leading", 1.0)
    assert kept_deviation(alphas, published, STD) == pytest.approx(0.42, abs=0.02)


@pytest.mark.parametrize(("name", "total"), [("cosine_light", 1000), ("sigmoid", 100)])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ten_steps_end_where_the_recursion_says(name, total, eta):
    """Each of the ten steps is affine in x, so mean and variance follow in closed form."""
    samples = draw(alphas_cumprod(name, total), SamplerConfig(10, "ddim", "leading", eta), seed=1)
    kept = alphas_cumprod(name, total).tolist()
    mean, variance = 0.0, 1.0
    for timestep in range(total - total // 10, -1, -(total // 10)):
        a = kept[timestep]
        before = kept[timestep - total // 10] if timestep else 1.0
        gain = math.sqrt(a) * STD**2 / (a * STD**2 + 1 - a)
        offset = MEAN * (1 - gain * math.sqrt(a))
        sigma = eta * math.sqrt((1 - before) / (1 - a) * (1 - a / before))
        to_noise = math.sqrt((1 - before - sigma**2) / (1 - a))
        slope = math.sqrt(before) * gain + to_noise * (1 - math.sqrt(a) * gain)
        shift = (math.sqrt(before) - to_noise * math.sqrt(a)) * offset
        mean, variance = slope * mean + shift, slope**2 * variance + sigma**2
    deviation = math.sqrt(variance)
    assert float(samples.mean()) == pytest.approx(mean, abs=0.06 * deviation)
    assert float(samples.std()) == pytest.approx(deviation, rel=0.05)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_steps_are_those_of_diffusers(spacing, sampler, eta):
    """Where diffusers has the same spacing, the samples are the same numbers."""
    if sampler == "ddpm" and eta:
        pytest.skip("ddpm has no eta")
    shared = {
        "trained_betas": betas("cosine_light", 1000).tolist(),
        "prediction_type": "sample",
        "clip_sample": False,
        "timestep_spacing": spacing,
    }
    kind = DDIMScheduler if sampler == "ddim" else DDPMScheduler
    scheduler = kind(num_train_timesteps=1000, **shared)
    scheduler.set_timesteps(10)

    def denoise(x, timestep):
        return torch.tanh(2 * x + timestep / 1000), None  # any smooth function

    found = draw(
        alphas_cumprod("cosine_light", 1000),
        SamplerConfig(10, sampler, spacing, eta),
        denoise,
        seed=5,
    )
    generators = item_generators(5, SHAPE[0])
    x = draw_noise(SHAPE, generators)
    extra = {"eta": eta} if sampler == "ddim" else {}
    for timestep in scheduler.timesteps:
        start = denoise(x, timestep)[0]
        x = scheduler.step(start, timestep, x, generator=generators, **extra).prev_sample
    assert torch.allclose(found, x, atol=2e-4)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_predictions_stand_for_the_same_start(prediction_type):
    scheduler = make_scheduler("cosine_light", 1000, prediction_type)
    random = torch.Generator().manual_seed(0)
    start = torch.rand(2, 3, 4, 12, generator=random) * 1.8 - 0.9
    noise = torch.randn(start.shape, generator=random)
    for timestep in (0, 300, 600):
        bar = float(scheduler.alphas_cumprod[timestep])
        signal, spread = math.sqrt(bar), math.sqrt(1 - bar)
        x = signal * start + spread * noise
        prediction = {
            "epsilon": noise,
            "sample": start,
            "v_prediction": signal * noise - spread * start,
        }[prediction_type]
        levels = torch.tensor(signal), torch.tensor(spread)
        found = predicted_start(prediction_type, prediction, x, *levels, 1.0)
        assert torch.allclose(found, start, atol=2e-3)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm++", "heun"])
@pytest.mark.parametrize("spacing", ["log_snr", "trailing", "leading"])
@pytest.mark.parametrize("steps", [1, 2, 10])
def test_no_signal_left_gives_no_nan(sampler, spacing, steps):
    """From the very last timestep, where √ᾱ is 7e-11, with a model that knows nothing."""
    alphas = alphas_cumprod("cosine_light", 1000)
    samples = draw(
        alphas, SamplerConfig(steps, sampler, spacing), lambda x, t: (torch.full_like(x, 3.0), None)
    )
    assert torch.allclose(samples, torch.full_like(samples, 3.0), atol=1e-3)


@pytest.mark.parametrize("spacing", ["log_snr", "trailing", "leading"])
@pytest.mark.parametrize(("name", "total"), [("cosine_light", 1000), ("sigmoid", 100)])
@pytest.mark.parametrize("steps", [1, 2, 7, 10, 99, 100])
def test_timesteps_fall_from_noise_to_clean(spacing, name, total, steps):
    alphas = alphas_cumprod(name, total)
    chosen = chosen_timesteps(alphas, steps, spacing)
    assert len(chosen) == steps
    assert all(a > b for a, b in zip(chosen, chosen[1:], strict=False))
    assert 0 <= chosen[-1] and chosen[0] < total
    # Sampling starts from pure noise: the signal is 5 % of its spread there, or less.
    assert float(alphas[chosen[0]]) < 0.003
    if steps > 1 and spacing != "trailing":
        assert chosen[-1] == 0
    if spacing == "log_snr" and steps == 10:
        ratio = torch.log(alphas / (1 - alphas))[chosen]
        strides = ratio.diff()
        assert float(strides.max() / strides.min()) < (1.1 if total == 1000 else 2.5)


@pytest.mark.parametrize(("place", "wide"), [(-1.0, False), (1.0, True)])
def test_learned_range_spans_posterior_and_beta(place, wide):
    """v = −1 is the posterior's variance, v = 1 is β, for the strided schedule."""
    alphas = alphas_cumprod("cosine_light", 1000)
    solver = Solver(alphas, SamplerConfig(10, "ddpm", "leading"), learned_variance=True)
    a, before = alphas[500], alphas[400]
    beta = 1 - a / before
    expected = beta if wide else beta * (1 - before) / (1 - a)
    shape = (1, 16, 16, 48)
    output = torch.cat((torch.zeros(shape), torch.full(shape, place)), dim=1)
    x = torch.zeros(shape)
    random = torch.Generator().manual_seed(0)
    result = solver.scheduler.step(output, 500, x, generator=random)
    assert float(result.prev_sample.var()) == pytest.approx(float(expected), rel=0.05)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (SamplerConfig(eta=1.5), "eta is 1.5"),
        (SamplerConfig(eta=0.5), "dpm\\+\\+ takes 0 or 1"),
        (SamplerConfig(sampler="heun", eta=1.0), "heun adds no noise"),
        (SamplerConfig(steps=0), "steps is 0"),
        (SamplerConfig(guidance_scale=-1), "guidance_scale is -1"),
        (SamplerConfig(guidance_interval=(0.8, 0.2)), "guidance_interval is 0.8 0.2"),
    ],
)
def test_settings_out_of_range_are_refused(config, words):
    with pytest.raises(UserError, match=words):
        check_settings(config)


def test_more_steps_than_timesteps_are_refused():
    with pytest.raises(UserError, match="steps is 101: this model has 100"):
        chosen_timesteps(alphas_cumprod("sigmoid", 100), 101, "trailing")
