"""Solvers of diffusion models: which noise levels are visited, and how one leads to the next.

Letters: T number of training timesteps, N number of steps, ᾱ share of signal variance left at a
timestep, λ = ln(ᾱ / (1 − ᾱ)) the log signal-to-noise ratio, x_t noisy planes, x₀ clean ones.

A denoiser says what clean planes to expect; a solver only ever sees that estimate of x₀, whatever
the network predicts. Few steps lose variance: an estimate is a mean, and a coarse step trusts it
for too long. `triavatar bench samplers` prints how much of the true standard deviation each choice
keeps where the exact denoiser is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from torch import Tensor

from diffusion.sampling.sampler_config import SamplerConfig, Spacing
from diffusion.sampling.schedules import log_snr
from runtime.config import check_settings
from runtime.errors import UserError

NOISE_ONLY = -8.0
"""λ below which x_t counts as noise alone (the signal's share of its spread is below 2 %)."""
LOWEST = -6.0
"""λ at which spacing `log_snr` starts: nothing is decided while the noise is stronger."""
HEUN_LOWEST = -12.0
"""λ below which heun, which scales x by the noise, would drown it in rounding errors."""

Denoiser = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""(x_t [B, C, H, W], timestep) → (x₀ like x_t, place of the log-variance in -1..1 or None)."""


def chosen_timesteps(alphas: Tensor, steps: int, spacing: Spacing) -> list[int]:
    """Return the timesteps a sampler visits, falling.

    Args:
        alphas: ᾱ [T], falling.
        steps: N.
        spacing: see `SamplerConfig`.

    Raises:
        UserError: more steps than timesteps.
    """
    total = len(alphas)
    if not 1 <= steps <= total:
        raise UserError(f"steps is {steps}: this model has {total} timesteps, give 1 to {total}")
    ratio = log_snr(alphas.double()).numpy()
    if spacing == "trailing":
        return [round(total - index * total / steps) - 1 for index in range(steps)]
    if spacing == "leading":
        chosen = [index * (total // steps) for index in reversed(range(steps))]
    else:
        wanted = np.linspace(max(ratio[-1], min(LOWEST, ratio[0] - 1)), ratio[0], steps)
        chosen = _distinct(ratio, wanted)
    if steps == 1 or (spacing == "leading" and ratio[chosen[0]] > NOISE_ONLY):
        # Sampling starts from pure noise, which no other timestep would be taken for.
        chosen[0] = total - 1
    return chosen


def _distinct(ratio: np.ndarray, wanted: np.ndarray) -> list[int]:
    """Timesteps nearest to wanted log-SNRs, each used once (`wanted` rises, so these fall)."""
    nearest = [int(np.abs(ratio - value).argmin()) for value in wanted]
    for place in reversed(range(len(nearest))):  # from the clean end: room is towards noise
        after = nearest[place + 1] + 1 if place + 1 < len(nearest) else 0
        nearest[place] = max(nearest[place], after)
    for place in range(len(nearest)):  # and back where the noisy end was overrun
        nearest[place] = min(nearest[place], len(ratio) - 1 - place)
    return nearest


class Solver:
    """Leads noise to samples, step by step, from a denoiser's estimates of x₀.

    Args:
        alphas: ᾱ [T] of the model's timesteps.
        config: steps, sampler, spacing, eta.
        learned_variance: the denoiser gives the place of the log-variance too (for ddpm).
    """

    def __init__(
        self, alphas: Tensor, config: SamplerConfig, learned_variance: bool = False
    ) -> None:
        check_settings(config)
        self.config = config
        self.alphas = alphas.double().cpu()
        self.timesteps = chosen_timesteps(self.alphas, config.steps, config.spacing)
        if config.sampler == "heun":
            last = int((log_snr(self.alphas) >= HEUN_LOWEST).sum()) - 1
            self.timesteps = [min(t, last - place) for place, t in enumerate(self.timesteps)]
        self.learned_variance = learned_variance and config.sampler == "ddpm"
        self.scheduler = self._scheduler()
        if self.scheduler is not None:
            self.scheduler.set_timesteps(timesteps=self.timesteps)

    def _scheduler(self) -> Any:
        """The diffusers scheduler that takes the steps; ddim's step is a formula below."""
        before = torch.cat((torch.ones(1, dtype=torch.float64), self.alphas[:-1]))
        shared = {
            "num_train_timesteps": len(self.alphas),
            "trained_betas": (1 - self.alphas / before).tolist(),
            "prediction_type": "sample",
        }
        if self.config.sampler == "ddpm":
            kind = "learned_range" if self.learned_variance else "fixed_small"
            return DDPMScheduler(**shared, variance_type=kind, clip_sample=False)
        if self.config.sampler == "dpm++":
            kind = "sde-dpmsolver++" if self.config.eta else "dpmsolver++"
            return DPMSolverMultistepScheduler(
                **shared, algorithm_type=kind, solver_order=2, final_sigmas_type="zero"
            )
        if self.config.sampler == "heun":
            return HeunDiscreteScheduler(**shared)
        return None

    def sample(
        self,
        denoise: Denoiser,
        noise: Tensor,
        generators: Sequence[torch.Generator],
        progress_bar: Callable = iter,
    ) -> Tensor:
        """Run from noise to samples, in float32.

        Args:
            denoise: gives x₀ of x_t at a timestep.
            noise: [B, C, H, W], standard normal.
            generators: one for each sample, for the noise of the steps.
            progress_bar: wraps the steps.

        Returns:
            [B, C, H, W] like noise.
        """
        if self.scheduler is None:
            return self._ddim(denoise, noise, generators, progress_bar)
        scheduler, x = self.scheduler, noise * self.scheduler.init_noise_sigma
        for timestep in progress_bar(scheduler.timesteps):
            scaled = scheduler.scale_model_input(x, timestep)
            start, place = denoise(scaled, timestep.long())
            if self.learned_variance and place is not None:
                start = torch.cat((start, place), dim=1)
            drawn = {} if self.config.sampler == "heun" else {"generator": list(generators)}
            x = scheduler.step(start, timestep, x, **drawn).prev_sample
        return x

    def _ddim(
        self,
        denoise: Denoiser,
        x: Tensor,
        generators: Sequence[torch.Generator],
        progress_bar: Callable,
    ) -> Tensor:
        """DDIM (arXiv 2010.02502, eq. 12) between any two timesteps."""
        following = [*self.timesteps[1:], None]
        for timestep, after in zip(progress_bar(self.timesteps), following, strict=True):
            start, _ = denoise(x, torch.tensor(timestep))
            bar = float(self.alphas[timestep])
            bar_after = 1.0 if after is None else float(self.alphas[after])
            spread = self.config.eta * ((1 - bar_after) / (1 - bar) * (1 - bar / bar_after)) ** 0.5
            noise = (x - bar**0.5 * start) / (1 - bar) ** 0.5
            x = bar_after**0.5 * start + max(0.0, 1 - bar_after - spread**2) ** 0.5 * noise
            if spread > 0:
                x = x + spread * draw_noise(x.shape, generators).to(x)
        return x


def draw_noise(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal [B, ...] on the CPU, each sample from its own generator."""
    return torch.stack([torch.randn(tuple(shape[1:]), generator=each) for each in generators])


def kept_deviation(alphas: Tensor, config: SamplerConfig, std: float, count: int = 20_000) -> float:
    """Share of the standard deviation that a sampler keeps where the exact denoiser is known.

    Args:
        alphas: ᾱ [T].
        config: steps, sampler, spacing, eta.
        std: standard deviation of the Gaussian data.
        count: samples drawn; the statistical error is below 0.5 % at 20,000.
    """
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 1, 1, count, generator=random)
    noise = noise / noise.std()  # a sampler without noise of its own is then exact

    def denoise(x: Tensor, timestep: Tensor) -> tuple[Tensor, None]:
        bar = float(alphas[timestep])
        return x * (bar**0.5 * std**2 / (bar * std**2 + 1 - bar)), None

    return float(Solver(alphas, config).sample(denoise, noise, [random]).std()) / std
