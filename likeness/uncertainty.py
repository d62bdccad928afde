"""Uncertainty: where people who look alike in a portrait differ from elsewhere.

Legend: M samples, N views, H W picture size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from captures.cameras import Cameras
from renderer.decoder import TriplaneDecoder
from renderer.render import RenderSettings, render_images


def disagreement(
    samples: Sequence[Tensor],
    decoder: TriplaneDecoder,
    cameras: Cameras,
    settings: RenderSettings | None = None,
) -> Tensor:
    """Return the standard deviation of the samples' pictures, root mean square over colours.

    Args:
        samples: M triplanes [3, C, H, W], two or more.

    Returns:
        [N, H, W], in units of sRGB.
    """
    return deviation(
        torch.stack(
            [render_images(planes, decoder, cameras, 1.0, settings).color for planes in samples]
        )
    )


def deviation(pictures: Tensor) -> Tensor:
    """Return how far M samples' pictures [M, N, H, W, 3] are apart, as :func:`disagreement`."""
    if len(pictures) < 2:
        raise ValueError("two samples or more are needed to differ")
    return pictures.var(dim=0).mean(dim=-1).sqrt()


def how_sure(surprise: float, portrait_psnr: float) -> str:
    """Return in words how far an avatar's likeness can be relied on.

    Args:
        surprise: of the portrait; 1 is what nine of ten stay under.
        portrait_psnr: how well the avatar shows it, in dB.
    """
    if portrait_psnr < 20:
        return "not sure: the avatar shows its own portrait badly"
    if surprise > 2:
        return "not sure: the portrait is unlike those learnt from"
    if surprise > 1:
        return "less sure: only one of ten portraits is as unusual"
    return "as sure as one portrait allows: its front is seen, the rest is a likely guess"


def heat(values: Tensor, top: float = 0.2) -> Tensor:
    """Colour [..., 3] of values [...]: white for 0, through yellow to dark red for ``top``."""
    stops = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.85, 0.3], [0.9, 0.3, 0.1], [0.4, 0.0, 0.1]])
    place = (values / top).clamp(0, 1) * (len(stops) - 1)
    below = place.floor().clamp(max=len(stops) - 2)
    part = (place - below)[..., None]
    low, high = stops[below.long()], stops[below.long() + 1]
    return low * (1 - part) + high * part
