"""The coefficients of the linear prior that a portrait asks for.

Legend: K components, R rays.
"""

from __future__ import annotations

import torch
from torch import Tensor

from likeness.descent import Marcher, draw, picture_error
from likeness.model import LikenessModel
from likeness.portrait import Portrait
from likeness.settings import CoefficientSettings
from runtime.seeds import generator


def find_coefficients(
    portrait: Portrait,
    model: LikenessModel,
    marcher: Marcher,
    start: Tensor,
    settings: CoefficientSettings,
    steps: int,
    seed: int = 0,
) -> Tensor:
    """Return coefficients [K] whose rendering comes closest to the portrait and that are likely.

    Args:
        model: its regression's guess and spread are the prior distribution.
        start: [K], where the descent begins.
        seed: names the pixels drawn.
    """
    likely, spread = model.regression(portrait), model.regression.spread.clamp(min=0.1)
    found = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([found], lr=settings.learning_rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    random = generator(seed, "coefficients")
    for _ in range(steps):
        planes = model.prior.planes(found).clamp(-1, 1)
        pixels = draw(portrait, settings.rays, random)
        loss = picture_error(marcher, planes, portrait, pixels, settings.opacity_weight)
        loss = loss + settings.prior_weight * ((found - likely) / spread).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return found.detach()
