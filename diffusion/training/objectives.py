"""Objectives: what a denoiser is trained to predict, and the loss on it.

Letters: B batch, C channels, H, W of the rolled-out planes, T number of timesteps, ᾱ (`alpha_bar`)
the share of signal variance left at a timestep. All losses come per sample [B]; their mean over the
global batch is the loss, so it doesn't depend on how the batch is spread over processes.
"""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor

from diffusion.sampling import predictions
from diffusion.sampling.predictions import PredictionType


def _per_sample(values: Tensor) -> Tensor:
    """Mean over everything but the batch: [B, ...] → [B]."""
    return values.flatten(1).mean(dim=1)


class DenoisingObjective:
    """Diffusion targets and losses for one noise schedule.

    Args:
        alphas_cumprod: [T], ᾱ of every timestep, falling, in (0, 1].
        prediction_type: what the network's first C channels mean.
        learned_variance: the network puts out another C channels, the place v in [-1, 1] of the
            log-variance between β̃ and β (Improved DDPM, eq. 15; diffusers' "learned_range").
        snr_gamma: γ of min-SNR weighting (Hang et al. 2023); None: the plain MSE of the target.
        vlb_weight: weight of the variational bound (bits per dimension). None: T / 1000, which
            keeps it from disturbing the MSE, as Improved DDPM does.
        device: where the tables lie.
        clip_range: estimates of x_0 are clipped to ±this in the variational bound.
        deviation: standard deviation of the data, which `edm` scales by.
    """

    def __init__(
        self,
        alphas_cumprod: Tensor,
        prediction_type: PredictionType,
        learned_variance: bool = False,
        snr_gamma: float | None = None,
        vlb_weight: float | None = None,
        device: torch.device | str = "cpu",
        clip_range: float = 1.0,
        deviation: float = 1.0,
    ) -> None:
        if prediction_type not in get_args(PredictionType):
            raise ValueError(f"unknown prediction_type {prediction_type!r}")
        bar = alphas_cumprod.to("cpu", torch.float64)
        previous = torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
        beta = 1 - bar / previous
        posterior = beta * (1 - previous) / (1 - bar)
        # β̃ is 0 at the first timestep; its neighbour's stands in for it (Improved DDPM).
        if len(bar) > 1:
            posterior[0] = posterior[1]
        self.num_timesteps = len(bar)
        self.clip_range = clip_range
        self.deviation = deviation
        self.prediction_type = prediction_type
        self.learned_variance = learned_variance
        self.snr_gamma = snr_gamma
        self.vlb_weight = len(bar) / 1000 if vlb_weight is None else vlb_weight
        tables = {
            "signal": bar.sqrt(),
            "noise": (1 - bar).sqrt(),
            "log_beta": beta.clamp(min=1e-20).log(),
            "log_posterior": posterior.clamp(min=1e-20).log(),
            # Mean of q(x_{t-1} | x_t, x_0) = from_start · x_0 + from_noisy · x_t.
            "from_start": beta * previous.sqrt() / (1 - bar),
            "from_noisy": (1 - previous) * (1 - beta).sqrt() / (1 - bar),
            "snr": bar / (1 - bar),
        }
        self.tables = {k: v.to(device=device, dtype=torch.float32) for k, v in tables.items()}

    def _at(self, table: str, timesteps: Tensor) -> Tensor:
        return self.tables[table][timesteps].view(-1, 1, 1, 1)

    def noisy(self, start: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = √ᾱ x_0 + √(1-ᾱ) ε; start and noise [B, C, H, W], timesteps [B] long."""
        return self._at("signal", timesteps) * start + self._at("noise", timesteps) * noise

    def _levels(self, timesteps: Tensor) -> tuple[Tensor, Tensor, float]:
        return self._at("signal", timesteps), self._at("noise", timesteps), self.deviation

    def network_input(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """Return what the network sees of x_t."""
        return predictions.network_input(self.prediction_type, noisy, *self._levels(timesteps))

    def target(self, start: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what the network's first C channels should be, [B, C, H, W]."""
        return predictions.target(self.prediction_type, start, noise, *self._levels(timesteps))

    def predicted_start(self, prediction: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """x_0 that a prediction [B, C, H, W] at x_t stands for (not clamped)."""
        levels = self._levels(timesteps)
        return predictions.predicted_start(self.prediction_type, prediction, noisy, *levels)

    def weights(self, timesteps: Tensor) -> Tensor:
        """Weight of each sample's squared error, [B].

        With γ, whatever the network predicts, the squared error of x_0 weighs min(SNR, γ).
        """
        if self.snr_gamma is None:
            return torch.ones_like(timesteps, dtype=torch.float32)
        clipped = self.tables["snr"][timesteps].clamp(min=1e-12, max=self.snr_gamma)
        levels = self._levels(timesteps)
        return clipped * predictions.start_error(self.prediction_type, *levels).flatten()

    def losses(
        self, output: Tensor, start: Tensor, noise: Tensor, noisy: Tensor, timesteps: Tensor
    ) -> dict[str, Tensor]:
        """Losses per sample.

        Args:
            output: [B, C or 2C, H, W], the network's output at (noisy, timesteps).
            start: x_0 [B, C, H, W].
            noise: ε [B, C, H, W].
            noisy: x_t [B, C, H, W].
            timesteps: [B] long in 0..T-1.

        Returns:
            "mse" [B] (weighted), with learned variance "vlb" [B] (bits per dimension, no gradient
            to the mean), and "loss" [B], their weighted sum; differentiable to output.
        """
        channels = start.shape[1]
        expected = channels * (2 if self.learned_variance else 1)
        if output.shape[1] != expected:
            raise ValueError(f"expected {expected} output channels, got {output.shape[1]}")
        output = output.float()
        prediction = output[:, :channels]
        error = (prediction - self.target(start, noise, timesteps)) ** 2
        mse = self.weights(timesteps) * _per_sample(error)
        if not self.learned_variance:
            return {"mse": mse, "loss": mse}
        vlb = self.variational_bound(
            prediction.detach(), output[:, channels:], start, noisy, timesteps
        )
        return {"mse": mse, "vlb": vlb, "loss": mse + self.vlb_weight * vlb}

    def variational_bound(
        self,
        prediction: Tensor,
        variance_place: Tensor,
        start: Tensor,
        noisy: Tensor,
        timesteps: Tensor,
    ) -> Tensor:
        """Term of the variational bound in bits per dimension, [B] (Improved DDPM, eq. 4-7).

        KL(q(x_{t-1} | x_t, x_0) ‖ p(x_{t-1} | x_t)) for t > 0 and -log p(x_0 | x_1) at t = 0.
        Planes are continuous: the last is the Gaussian's density, not that of 8-bit bins.
        """
        guess = self.predicted_start(prediction, noisy, timesteps)
        guess = guess.clamp(-self.clip_range, self.clip_range)
        coefficient = self._at("from_start", timesteps), self._at("from_noisy", timesteps)
        true_mean = coefficient[0] * start + coefficient[1] * noisy
        mean = coefficient[0] * guess + coefficient[1] * noisy
        low, high = self._at("log_posterior", timesteps), self._at("log_beta", timesteps)
        place = (variance_place + 1) / 2
        log_variance = place * high + (1 - place) * low
        squared = (true_mean - mean) ** 2
        kl = 0.5 * (
            log_variance - low - 1 + (low - log_variance).exp() + squared * (-log_variance).exp()
        )
        density = 0.5 * (
            math.log(2 * math.pi) + log_variance + (start - mean) ** 2 * (-log_variance).exp()
        )
        first = (timesteps == 0).view(-1, 1, 1, 1)
        return _per_sample(torch.where(first, density, kl)) / math.log(2)


class RegressionObjective:
    """The same interface for a model that predicts x_0 in one pass, from a portrait alone."""

    num_timesteps = 1

    def noisy(self, start: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Nothing to be seen of x_0: zeros [B, C, H, W]."""
        return torch.zeros_like(start)

    def network_input(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """The zeros themselves."""
        return noisy

    def predicted_start(self, prediction: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """The prediction itself."""
        return prediction

    def losses(
        self, output: Tensor, start: Tensor, noise: Tensor, noisy: Tensor, timesteps: Tensor
    ) -> dict[str, Tensor]:
        """Mean squared error per sample, "mse" and "loss" [B]."""
        mse = _per_sample((output.float() - start) ** 2)
        return {"mse": mse, "loss": mse}
