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
from torch import Tensor

from diffusion.sampling.predictions import PredictionType

ScheduleName = Literal["cosine_light", "sigmoid", "linear"]

SCHEDULE_NAMES: tuple[str, ...] = get_args(ScheduleName)


def alpha_bar(name: ScheduleName, time: np.ndarray) -> np.ndarray:
    """The continuous ᾱ(t) of a schedule, before any cap on β.

    Args:
        name: `cosine_light` (the base model's), `sigmoid` (the upsampler's), or `linear` (that of
            DDPM, arXiv 2006.11239, for comparison).
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
    if name == "linear":
        return np.exp(-(0.1 * time + 9.95 * time**2))
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
    clip_range: float = 1.0,
) -> DDIMScheduler:
    """The diffusers scheduler that a model's folder keeps: its noise levels and prediction type.

    How the levels are walked when sampling is chosen later (`diffusion.sampling.solvers`).

    Args:
        name: noise schedule.
        num_train_timesteps: T.
        prediction_type: what the model predicts: `epsilon`, `sample` (x₀), `v_prediction` or `edm`.
        clip_range: estimates of x₀ are clipped to ±this.
    """
    return DDIMScheduler(
        num_train_timesteps=num_train_timesteps,
        trained_betas=betas(name, num_train_timesteps).tolist(),
        prediction_type=prediction_type,
        clip_sample=True,
        clip_sample_range=clip_range,
        timestep_spacing="trailing",
    )
