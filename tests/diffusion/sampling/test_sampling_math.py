"""The sampler against closed forms: exact denoisers of a Gaussian, and DDIM written out again."""

import math

import pytest
import torch

from diffusion.sampling.pipelines import item_generators, sample_rollouts
from diffusion.sampling.schedules import alphas_cumprod, make_scheduler

MEAN, STD = 0.1, 0.25
CPU = torch.device("cpu")
SHAPE = (4, 4, 8, 24)


def gaussian_denoiser(kept: torch.Tensor, prediction_type: str):
    """Predictions of E[x₀ | x_t] for x₀ ~ N(MEAN, STD²)."""

    def denoise(x, timestep):
        a = kept[timestep].item()
        gain = math.sqrt(a) * STD**2 / (a * STD**2 + 1 - a)
        start = MEAN + gain * (x.double() - math.sqrt(a) * MEAN)
        noise = (x.double() - math.sqrt(a) * start) / math.sqrt(1 - a)
        if prediction_type == "sample":
            return start
        if prediction_type == "epsilon":
            return noise
        return math.sqrt(a) * noise - math.sqrt(1 - a) * start

    return denoise


@pytest.mark.parametrize(
    ("name", "sampler", "eta", "prediction_type", "steps", "tolerance"),
    [
        ("cosine_light", "ddim", 0.0, "epsilon", 1000, 0.014),
        ("cosine_light", "ddim", 0.0, "v_prediction", 1000, 0.014),
        ("cosine_light", "ddim", 1.0, "sample", 1000, 0.020),
        ("cosine_light", "ddpm", 1.0, "epsilon", 1000, 0.020),
        # Less signal at every timestep, so more steps for the same accuracy.
        ("sigmoid", "ddim", 0.0, "sample", 2000, 0.025),
    ],
)
def test_exact_denoiser_reproduces_the_gaussian(
    name, sampler, eta, prediction_type, steps, tolerance
):
    # A fine schedule: its first timestep is nearly clean, so that nothing of the variance is lost
    # when the last step gives the mean.
    scheduler = make_scheduler(name, 10_000, prediction_type, sampler=sampler)
    denoise = gaussian_denoiser(scheduler.alphas_cumprod.double(), prediction_type)
    samples = sample_rollouts(
        denoise, scheduler, SHAPE, item_generators(0, SHAPE[0]), steps, eta, CPU
    )
    assert samples.dtype == torch.float32
    # 3,072 values: the standard errors are 0.0045 and 0.0032.
    assert float(samples.mean()) == pytest.approx(MEAN, abs=0.014)
    assert float(samples.std()) == pytest.approx(STD, abs=tolerance)


@pytest.mark.parametrize(("name", "total"), [("cosine_light", 1000), ("sigmoid", 100)])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ten_steps_end_where_the_recursion_says(name, total, eta):
    """Each of the ten steps is affine in x, so mean and variance follow in closed form."""
    scheduler = make_scheduler(name, total, "sample")
    denoise = gaussian_denoiser(scheduler.alphas_cumprod.double(), "sample")
    samples = sample_rollouts(denoise, scheduler, SHAPE, item_generators(1, SHAPE[0]), 10, eta, CPU)
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
@pytest.mark.parametrize("prediction_type", ["sample", "epsilon"])
def test_ddim_equals_its_equation(spacing, prediction_type):
    """Ten steps of eq. 12 of arXiv 2010.02502 in float64, with x₀ clipped and ε recomputed."""
    scheduler = make_scheduler("cosine_light", 1000, prediction_type, timestep_spacing=spacing)
    shape = (2, 3, 4, 12)

    def denoise(x, timestep):
        return torch.tanh(2 * x.double() + timestep / 1000)  # any smooth function

    samples = sample_rollouts(denoise, scheduler, shape, item_generators(5, 2), 10, 0.0, CPU)

    kept = alphas_cumprod("cosine_light", 1000)
    generators = item_generators(5, 2)
    x = torch.stack([torch.randn(shape[1:], generator=g) for g in generators]).double()
    first = 999 if spacing == "trailing" else 900
    for timestep in range(first, -1, -100):
        a = kept[timestep]
        before = kept[timestep - 100] if timestep >= 100 else torch.tensor(1.0).double()
        prediction = denoise(x, torch.tensor(timestep))
        if prediction_type == "epsilon":
            prediction = (x - (1 - a).sqrt() * prediction) / a.sqrt()
        start = prediction.clamp(-1, 1)
        noise = (x - a.sqrt() * start) / (1 - a).sqrt()
        x = before.sqrt() * start + (1 - before).sqrt() * noise
    assert torch.allclose(samples.double(), x.clamp(-1, 1), atol=2e-4)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("steps", [1, 10, 1000])
def test_no_signal_left_gives_no_nan(prediction_type, sampler, steps):
    """From the very last timestep, where √ᾱ is 7e-11, with a model that knows nothing."""
    scheduler = make_scheduler(
        "cosine_light", 1000, prediction_type, sampler=sampler, timestep_spacing="trailing"
    )

    def denoise(x, timestep):
        return torch.full_like(x, 3.0)

    samples = sample_rollouts(
        denoise, scheduler, (1, 2, 2, 6), item_generators(0, 1), steps, 1.0, CPU
    )
    assert torch.isfinite(samples).all() and float(samples.abs().max()) <= 1


@pytest.mark.parametrize(("place", "wide"), [(-1.0, False), (1.0, True)])
def test_learned_range_spans_posterior_and_beta(place, wide):
    """v = −1 is the posterior's variance, v = 1 is β, for the strided schedule."""
    scheduler = make_scheduler(
        "cosine_light", 1000, "sample", sampler="ddpm", learned_variance=True
    )
    scheduler.set_timesteps(10)
    kept = alphas_cumprod("cosine_light", 1000)
    a, before = kept[500], kept[400]
    beta = 1 - a / before
    expected = beta if wide else beta * (1 - before) / (1 - a)
    shape = (1, 16, 16, 48)
    output = torch.cat((torch.zeros(shape), torch.full(shape, place)), dim=1)
    x = torch.zeros(shape)
    result = scheduler.step(output, 500, x, generator=torch.Generator().manual_seed(0))
    assert float(result.prev_sample.var()) == pytest.approx(float(expected), rel=0.05)


def test_eta_outside_its_range_is_refused():
    scheduler = make_scheduler("sigmoid", 100, "sample")
    with pytest.raises(ValueError, match="eta is 1.5"):
        sample_rollouts(
            lambda x, t: x, scheduler, (1, 1, 2, 6), item_generators(0, 1), 10, 1.5, CPU
        )
