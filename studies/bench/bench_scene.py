"""Scenes to measure with: a fitted subject, or a hard-surfaced stand-in made by hand."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from renderer.decoder import TriplaneDecoder
from renderer.fitted_set import FittedSet
from runtime.errors import UserError
from runtime.seeds import generator


def load_scene(folder: Path, name: str | None) -> tuple[Tensor, TriplaneDecoder]:
    """A subject of a triplane folder (the first without a name): planes [3, C, H, W], decoder."""
    fitted = FittedSet.open(folder)
    if not fitted.names:
        raise UserError(f"{folder} holds no triplanes to measure with")
    return fitted.load(name or fitted.names[0]), fitted.decoder()


@torch.no_grad()
def make_scene(
    size: int, channels: int, color_channels: int, hidden: int, seed: int = 0
) -> tuple[Tensor, TriplaneDecoder]:
    """An opaque ball of radius about 0.6 with random colours, as wide as a fitted head.

    One density channel holds 1 − 1.2·r² (a sum of one function per plane); two hidden units turn
    it into a logarithm of density that is steep at the surface and flat inside and outside.
    """
    random = generator(seed, "bench scene")
    decoder = TriplaneDecoder(channels, color_channels, hidden)
    for parameter in decoder.parameters():
        noise = torch.randn(parameter.shape, generator=random)
        parameter.copy_(noise / max(1, parameter.shape[-1]) ** 0.5)
    decoder.density_in.weight[:2] = 0
    decoder.density_in.weight[:2, 0] = 40.0
    decoder.density_in.bias[0], decoder.density_in.bias[1] = -20.0, -24.0
    # softplus(a) − softplus(a − 4) climbs from 0 to 4 across the surface.
    decoder.density_out.weight[0] = 0
    decoder.density_out.weight[0, 0], decoder.density_out.weight[0, 1] = 3.0, -3.0
    decoder.density_out.bias[0] = -6.0
    axis = torch.linspace(-1, 1, size)
    planes = torch.rand(3, channels, size, size, generator=random) * 2 - 1
    distance = axis[:, None].square() + axis[None].square()
    planes[:, color_channels] = 1.0 - 1.8 * distance
    return planes, decoder.requires_grad_(False)
