"""Small errors of triplanes: made on purpose, to measure what they cost or to train against them.

Legend: C channels, H W plane size.

What a diffusion model makes, and what a compact file keeps, is a little off. A decoder whose
pictures suffer little from that is worth more than the last tenth of a decibel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from renderer.triplane import dequantize, quantize, resize_planes
from runtime.config import setting
from runtime.seeds import generator


@dataclass
class JitterSettings:
    """Errors that planes are rendered with while they are fitted, so that fits tolerate them.

    Off by default: on data/example at debug scale (64² planes, a shortened schedule), noise 0.1
    with 0.3 of the steps rescaled by 2, in both stages, cost 1.6 dB of the clean planes. What
    H → H/2 → H loses fell from 3.7 to 0.4 dB and what H → H/4 → H loses from 8.9 to 5.3 dB. Noise
    of σ = 0.05 costs 0.1 dB with or without. Rescaling in stage 2 alone is enough: a decoder of
    stage 1 that never saw such planes makes fits that tolerate it as well.
    """

    noise: float = setting(0.0, at_least=0)
    """Largest standard deviation of Gaussian noise on the planes; each step draws its own from 0
    to this. 0 turns it off."""
    rescale_fraction: float = setting(0.0, at_least=0, at_most=1)
    """Share of the steps rendered through planes that were shrunk and enlarged again."""
    rescale_factor: int = setting(4, at_least=1, at_most=64)
    """By how much they are shrunk."""

    @property
    def active(self) -> bool:
        """Return whether anything is jittered."""
        return self.noise > 0 or self.rescale_fraction > 0


def add_noise(planes: Tensor, std: float, *key: int | str) -> Tensor:
    """Gaussian noise of a seed's own on planes [..., H, W]; differentiable to them.

    It is drawn on the planes' device: other devices draw other noise.
    """
    random = generator(*key, device=planes.device)
    return planes + std * torch.randn(planes.shape, generator=random, device=planes.device)


def rescale(planes: Tensor, factor: int) -> Tensor:
    """Shrink planes [3, C, H, H] by ``factor`` and enlarge them again; differentiable."""
    size = planes.shape[-1]
    return resize_planes(resize_planes(planes[None], max(1, size // factor)), size)[0]


def jitter(planes: Tensor, settings: JitterSettings, *key: int | str) -> Tensor:
    """Planes [3, C, H, H] with this step's errors; differentiable to them."""
    draw = generator(*key)
    through, strength = torch.rand(2, generator=draw).tolist()
    if through < settings.rescale_fraction:
        planes = rescale(planes, settings.rescale_factor)
    if settings.noise > 0:
        planes = add_noise(planes, strength * settings.noise, *key, "noise")
    return planes


def perturbations(name: str, seed: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """What :mod:`studies.triplane_stats` measures, by what it is called; planes stay in range."""

    def stored(planes: Tensor) -> Tensor:
        packed = quantize(planes)
        return dequantize(packed["planes"], packed["scale"], packed["offset"])

    def noisy(std: float) -> Callable[[Tensor], Tensor]:
        return lambda planes: add_noise(planes, std, seed, "stats", name).clamp(-1, 1)

    return {
        "fp16": lambda planes: planes.half().float(),
        "uint8": stored,
        "noise 0.02": noisy(0.02),
        "noise 0.05": noisy(0.05),
        "H → H/2 → H": lambda planes: rescale(planes, 2),
        "H → H/4 → H": lambda planes: rescale(planes, 4),
    }
