"""Noise schedules against the published table, and the noise levels a sampler really visits."""

import math

import numpy as np
import pytest
import torch

from diffusion.sampling.schedules import (
    alpha_bar,
    alphas_cumprod,
    betas,
    log_snr,
    make_scheduler,
)

# (schedule, T, t) → natural log-SNR.
TABLE = [
    ("cosine_light", 1000, 0.10, 1.05),
    ("cosine_light", 1000, 0.25, -0.49),
    ("cosine_light", 1000, 0.50, -2.83),
    ("cosine_light", 1000, 0.75, -6.74),
    ("sigmoid", 100, 0.10, -2.26),
    ("sigmoid", 100, 0.25, -6.81),
    ("sigmoid", 100, 0.50, -14.31),
    ("linear", 1000, 0.10, 2.16),
    ("linear", 1000, 0.25, 0.10),
    ("linear", 1000, 0.50, -2.46),
    ("linear", 1000, 0.75, -5.67),
]


@pytest.mark.parametrize(("name", "steps", "time", "expected"), TABLE)
def test_log_snr_table(name, steps, time, expected):
    kept = float(alpha_bar(name, np.array(time)))
    assert math.log(kept / (1 - kept)) == pytest.approx(expected, abs=0.011)
    # Timestep i stands for t = (i + 1) / T.
    discrete = log_snr(alphas_cumprod(name, steps))[round(time * steps) - 1]
    assert float(discrete) == pytest.approx(expected, abs=0.011)


@pytest.mark.parametrize("name", ["cosine_light", "sigmoid"])
@pytest.mark.parametrize("steps", [1, 7, 100, 1000])
def test_betas_are_ratios_of_alpha_bar(name, steps):
    values = betas(name, steps)
    assert values.shape == (steps,)
    assert bool((values > 0).all()) and float(values.max()) <= 0.999
    time = np.arange(steps + 1) / steps
    free = values < 0.999
    product = torch.cumprod(1 - values, 0)
    expected = torch.from_numpy(alpha_bar(name, time)[1:])
    assert torch.allclose(product[free], expected[free], rtol=1e-9, atol=0)


@pytest.mark.parametrize(("name", "steps"), [("cosine_light", 1000), ("sigmoid", 100)])
def test_last_timestep_is_noise_and_yet_finite(name, steps):
    scheduler = make_scheduler(name, steps, "epsilon")
    assert scheduler.alphas_cumprod.dtype == torch.float32
    assert 0 < float(scheduler.alphas_cumprod[-1]) < 1e-9
    assert torch.allclose(
        scheduler.alphas_cumprod.double(), alphas_cumprod(name, steps), rtol=1e-3, atol=0
    )


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="cosine_light"):
        betas("cosine", 10)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one"):
        betas("sigmoid", 0)


@pytest.mark.parametrize("total", [100, 1000])
def test_a_model_keeps_the_noise_levels_it_was_trained_with(total):
    """One meaning of a timestep on both sides."""
    scheduler = make_scheduler("sigmoid", total, "sample")
    clean, noise = torch.full((1, 1, 2, 6), 0.5), torch.ones(1, 1, 2, 6)
    kept = alphas_cumprod("sigmoid", total)
    for timestep in (total - 1, total // 2, 0):
        noisy = scheduler.add_noise(clean, noise, torch.tensor([timestep]))
        expected = kept[timestep].sqrt() * 0.5 + (1 - kept[timestep]).sqrt()
        assert torch.allclose(noisy.double(), expected.expand_as(noisy), atol=1e-6)
