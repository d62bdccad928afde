"""The planes themselves tuned to a portrait, with their sides held.

Legend: C channels, H W plane size, R rays.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fitting.free_space import FreeSpace
from likeness.descent import Marcher, draw, picture_error
from likeness.portrait.portrait import Portrait
from likeness.settings import PlaneSettings
from renderer.triplane import resize_planes
from runtime.seeds import generator


def tune_planes(
    portrait: Portrait,
    sides: list[Portrait],
    planes: Tensor,
    noise: Tensor,
    hull: Tensor,
    marcher: Marcher,
    settings: PlaneSettings,
    seed: int = 0,
) -> Tensor:
    """Return planes [3, C, S, S] that show the portrait and keep the sides.

    Args:
        sides: what they shall look like from elsewhere.
        planes: [3, C, H, W], the start; resized to ``settings.size`` first if that is larger.
        hull: [G, G, G] bool, cells that may hold anything.
        noise: [3, C, H, W], how far each texel may be off; texels of no deviation hardly move.
    """
    size = max(settings.size, planes.shape[-1])
    start = resize_planes(planes[None], size)[0].clamp(-1, 1)
    step = resize_planes(noise[None], size)[0].clamp(min=1e-3)
    # In units of its deviation, every texel is as free to move as people differ there.
    step = step / step.square().mean().sqrt()
    change = torch.zeros_like(start, requires_grad=True)
    optimizer = torch.optim.Adam([change], lr=settings.learning_rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(settings.steps, 1), 1e-3)
    free = FreeSpace(hull)
    random = generator(seed, "planes")
    for index in range(settings.steps):
        tuned = (start + change * step).clamp(-1, 1)
        pixels = draw(portrait, settings.rays, random)
        loss = picture_error(marcher, tuned, portrait, pixels, 0.3)
        if sides and settings.side_weight:
            side = sides[index % len(sides)]
            pixels = draw(side, settings.side_rays, random)
            loss = loss + settings.side_weight * picture_error(marcher, tuned, side, pixels, 0.3)
        if settings.free_space_weight:
            count = settings.free_space_points
            fog = free.loss(tuned, marcher.decoder, count, index, random)
            loss = loss + settings.free_space_weight * fog
        across = (change[..., 1:] - change[..., :-1]).square().mean()
        down = (change[..., 1:, :] - change[..., :-1, :]).square().mean()
        loss = loss + settings.prior_weight * change.square().mean()
        loss = loss + settings.smoothness_weight * (across + down)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return (start + change * step).clamp(-1, 1).detach()
