"""One step of descent on a picture's error: drawing pixels, rendering them, comparing.

Legend: R rays, C channels, H W plane size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from likeness.portrait.portrait import Portrait
from renderer.decoder import TriplaneDecoder
from renderer.occupancy import OccupancyGrid
from renderer.render import RenderSettings, build_occupancy, render_rays

REFRESH_EVERY = 15
"""Steps between refreshes of the occupancy grid."""


class Marcher:
    """Renders rays of changing planes, with an occupancy grid refreshed now and then."""

    def __init__(self, decoder: TriplaneDecoder, settings: RenderSettings) -> None:
        self.decoder, self.settings = decoder, settings
        self.grid: OccupancyGrid | None = None
        self.calls = 0

    def __call__(self, planes: Tensor, origins: Tensor, directions: Tensor):
        """Render rays [R, 3] of planes [3, C, H, W] on white; differentiable to the planes."""
        if self.grid is None or self.calls % REFRESH_EVERY == 0:
            self.grid = build_occupancy(planes.detach(), self.decoder, self.settings)
        self.calls += 1
        return render_rays(planes, self.decoder, self.grid, origins, directions, 1.0, self.settings)


def draw(portrait: Portrait, count: int, random: torch.Generator) -> Tensor:
    """Draw ``count`` pixels of a portrait, [R] int64, most of them on or near the subject."""
    return torch.multinomial(portrait.odds, min(count, portrait.size**2), generator=random)


def picture_error(
    marcher: Marcher, planes: Tensor, portrait: Portrait, pixels: Tensor, opacity_weight: float
) -> Tensor:
    """Mean squared colour error plus weighted opacity error at pixels [R]; scalar with graph."""
    origins, directions = portrait.rays
    rendered = marcher(planes, origins[pixels], directions[pixels])
    color = (rendered.color - portrait.color.view(-1, 3)[pixels]).square().mean()
    opacity = (rendered.opacity - portrait.alpha.view(-1)[pixels]).square().mean()
    return color + opacity_weight * opacity
