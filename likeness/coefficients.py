"""The coefficients of the linear prior that a portrait asks for.

Legend: K components, R rays.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from likeness.descent import Marcher, draw, picture_error
from likeness.learned.likeness_model import LikenessModel
from likeness.portrait.portrait import Portrait
from likeness.settings import CoefficientSettings
from runtime.seeds import generator


@dataclass(frozen=True)
class Expected:
    """The expectation of coefficients before the avatar is looked at.

    Attributes:
        mean: [K].
        spread: [K], deviations.
    """

    mean: Tensor
    spread: Tensor

    def drawn(self, seed: int, sample: int) -> Expected:
        """Return the same expectation about a random mean; sample 0 is unchanged.

        Descending from a drawn mean with the portrait held draws from the posterior, as far as
        rendering is linear (randomise then optimise, Bardsley and others 2014).
        """
        if sample == 0:
            return self
        random = torch.randn(self.mean.shape, generator=generator(seed, "sample", sample))
        return Expected(self.mean + self.spread * random, self.spread)


class CoefficientSearch:
    """Coefficients whose rendering comes closest to a portrait and that are likely.

    A few damped Newton steps on every other pixel of every other row, with the curvature that the
    training people's portraits have, then steps of Adam on random pixels.

    Args:
        portrait: evenly lit, with its camera.
        expected: of the coefficients.
        seed: names the pixels drawn.
    """

    def __init__(
        self,
        portrait: Portrait,
        model: LikenessModel,
        expected: Expected,
        marcher: Marcher,
        settings: CoefficientSettings,
        seed: int = 0,
    ) -> None:
        self.portrait, self.model, self.expected = portrait, model, expected
        self.marcher, self.settings = marcher, settings
        self.random = generator(seed, "coefficients")

    def loss(self, coefficients: Tensor, pixels: Tensor) -> Tensor:
        """Picture error at pixels [R] plus the penalty of what is unlikely; scalar with graph."""
        planes = self.model.prior.planes(coefficients).clamp(-1, 1)
        weight = self.settings.opacity_weight
        error = picture_error(self.marcher, planes, self.portrait, pixels, weight)
        unlikely = ((coefficients - self.expected.mean) / self.expected.spread).square().sum()
        return error + self.settings.prior_weight * unlikely

    def newton(self, start: Tensor, steps: int) -> Tensor:
        """Return coefficients [K] after Levenberg's steps from ``start``."""
        size = self.portrait.size
        pixels = torch.arange(size**2).view(size, size)[::2, ::2].flatten()
        color, opacity = self.model.curvature
        curvature = color + self.settings.opacity_weight * opacity
        prior = torch.diag(2 * self.settings.prior_weight / self.expected.spread.square())
        found, (loss, slope), damping = start, self._value_and_slope(start, pixels), 0.0
        for _ in range(steps):
            damped = curvature + damping * torch.diag(curvature.diagonal()) + prior
            trial = found - torch.linalg.solve(damped, slope)
            other_loss, other_slope = self._value_and_slope(trial, pixels)
            if other_loss < loss:
                found, loss, slope, damping = trial, other_loss, other_slope, damping / 3
            else:
                damping = max(4 * damping, 0.5)
        return found

    def _value_and_slope(self, coefficients: Tensor, pixels: Tensor) -> tuple[float, Tensor]:
        leaf = coefficients.clone().requires_grad_(True)
        loss = self.loss(leaf, pixels)
        loss.backward()
        assert leaf.grad is not None
        return loss.item(), leaf.grad

    def adam(self, start: Tensor, steps: int) -> Tensor:
        """Return coefficients [K] after steps of Adam from ``start``."""
        found = start.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([found], lr=self.settings.learning_rate)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
        for _ in range(steps):
            loss = self.loss(found, draw(self.portrait, self.settings.rays, self.random))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decay.step()
        return found.detach()
