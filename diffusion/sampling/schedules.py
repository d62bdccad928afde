"""Noise schedules of the triplane diffusion models, as diffusers schedulers.

Letters: T number of training timesteps, ᾱ the kept share of the signal's variance: a plane at
timestep i is x_i = √ᾱ_i · x₀ + √(1 − ᾱ_i) · ε.

A triplane is redundant (resolution, channels, correspondence between planes): at equal
signal-to-noise ratio it is destroyed less than an image, so both schedules here hold less signal
than the usual image schedules (RodinHD, arXiv 2407.06938).

A timestep is an index 0 … T−1 into ᾱ, the same number for the model in training and in sampling.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

ScheduleName = Literal["cosine_light", "sigmoid"]
PredictionType = Literal["epsilon", "sample", "v_prediction"]
SamplerName = Literal["ddim", "ddpm"]
TimestepSpacing = Literal["leading", "trailing"]

SCHEDULE_NAMES: tuple[str, ...] = get_args(ScheduleName)


def alpha_bar(name: ScheduleName, time: np.ndarray) -> np.ndarray:
    """The continuous ᾱ(t) of a schedule, before any cap on β.

    Args:
        name: `cosine_light` (the base model's) or `sigmoid` (the upsampler's).
        time: t in 0..1.

    Returns:
        ᾱ(t) as float64, 1 at t = 0.
    """
    time = np.asarray(time, dtype=np.float64)
    if name == "cosine_light":
        angle = (0.2 + 0.8 * time) * np.pi / 2
        return (np.cos(angle) / np.cos(0.1 * np.pi)) ** 6
    if name == "sigmoid":
        # S(30) − S(30t) with S the logistic function, written as S(−30t) − S(−30): the same number
        # without subtracting two values that both round to 1.
        end = 1 / (1 + np.exp(30.0))
        return (1 / (1 + np.exp(30 * time)) - end) / (0.5 - end)
    raise ValueError(f"unknown noise schedule '{name}': choose one of {', '.join(SCHEDULE_NAMES)}")


def betas(name: ScheduleName, num_steps: int, max_beta: float = 0.999) -> Tensor:
    """β_i = 1 − ᾱ((i+1)/T) / ᾱ(i/T), capped.

    The cap keeps ᾱ of the last step above zero (5e-21 for `cosine_light` at T = 1000), so that an
    epsilon prediction can be turned into x₀ there without dividing by zero.

    Args:
        name: schedule.
        num_steps: T.
        max_beta: cap.

    Returns:
        [T] float64 in (0, max_beta].
    """
    if num_steps < 1:
        raise ValueError(f"a schedule needs at least one timestep, got {num_steps}")
    kept = alpha_bar(name, np.arange(num_steps + 1) / num_steps)
    return torch.from_numpy(np.minimum(1 - kept[1:] / kept[:-1], max_beta))


def alphas_cumprod(name: ScheduleName, num_steps: int, max_beta: float = 0.999) -> Tensor:
    """ᾱ_i of the T timesteps, [T] float64, falling."""
    return torch.cumprod(1 - betas(name, num_steps, max_beta), dim=0)


def log_snr(alphas: Tensor) -> Tensor:
    """ln(ᾱ / (1 − ᾱ)), elementwise."""
    return torch.log(alphas) - torch.log1p(-alphas)


def make_scheduler(
    name: ScheduleName,
    num_train_timesteps: int,
    prediction_type: PredictionType,
    *,
    sampler: SamplerName = "ddim",
    learned_variance: bool = False,
    timestep_spacing: TimestepSpacing = "leading",
) -> DDIMScheduler | DDPMScheduler:
    """A diffusers scheduler with one of this project's schedules.

    Args:
        name: noise schedule.
        num_train_timesteps: T.
        prediction_type: what the model predicts: `epsilon`, `sample` (x₀) or `v_prediction`.
        sampler: `ddim` (its η is given at each step) or `ddpm` (ancestral).
        learned_variance: for `ddpm`: the model gives 2C channels, the second half interpolates the
            log-variance between the posterior's and β (learned range). `ddim` has its own variance.
        timestep_spacing: `leading` samples at 0, T/N, 2T/N … and so ends with a nearly clean step;
            `trailing` starts at T−1.

    Returns:
        The scheduler. It predicts x₀ within ±1, and knows the training noise (`add_noise`,
        `get_velocity`) as well as the sampling steps.
    """
    shared = {
        "num_train_timesteps": num_train_timesteps,
        "trained_betas": betas(name, num_train_timesteps).tolist(),
        "prediction_type": prediction_type,
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "timestep_spacing": timestep_spacing,
    }
    if sampler == "ddim":
        return DDIMScheduler(**shared, set_alpha_to_one=True)
    if sampler == "ddpm":
        variance_type = "learned_range" if learned_variance else "fixed_small"
        return DDPMScheduler(**shared, variance_type=variance_type)
    raise ValueError(f"unknown sampler '{sampler}': choose ddim or ddpm")


def check_inference_steps(num_train_timesteps: int, num_inference_steps: int) -> None:
    """Refuses a number of sampling steps that does not divide T.

    diffusers rounds the stride down and then pairs noise levels that are not those it visits (or,
    with leading spacing, starts far below full noise).

    Raises:
        ValueError: names the nearest numbers of steps that work.
    """
    if num_inference_steps >= 1 and num_train_timesteps % num_inference_steps == 0:
        return
    good = [n for n in range(1, num_train_timesteps + 1) if num_train_timesteps % n == 0]
    near = sorted(sorted(good, key=lambda n: abs(n - num_inference_steps))[:4])
    raise ValueError(
        f"{num_inference_steps} sampling steps do not divide the {num_train_timesteps} training "
        f"timesteps; use for example {', '.join(map(str, near))}"
    )
