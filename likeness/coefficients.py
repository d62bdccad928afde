"""The coefficients of the linear prior that a portrait asks for.

Legend: K components, R rays.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from likeness.descent import Marcher, draw, picture_error
from likeness.learned.prior import LinearPrior
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


def find_coefficients(
    portrait: Portrait,
    prior: LinearPrior,
    expected: Expected,
    start: Tensor,
    marcher: Marcher,
    settings: CoefficientSettings,
    steps: int,
    seed: int = 0,
) -> Tensor:
    """Return coefficients [K] whose rendering comes closest to the portrait and that are likely.

    Args:
        start: [K], where the descent begins.
        seed: names the pixels drawn.
    """
    found = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([found], lr=settings.learning_rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    random = generator(seed, "coefficients")
    for _ in range(steps):
        planes = prior.planes(found).clamp(-1, 1)
        pixels = draw(portrait, settings.rays, random)
        loss = picture_error(marcher, planes, portrait, pixels, settings.opacity_weight)
        unlikely = ((found - expected.mean) / expected.spread).square().sum()
        loss = loss + settings.prior_weight * unlikely
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return found.detach()
