"""Damage for the low-resolution planes that the upsampler learns from.

The upsampler trains on shrunken true planes but works on generated ones. Random blur, resampling
and noise (BSRGAN-light: Zhang et al. 2021 without its JPEG and camera steps) close that gap.

Letters: P = 3 planes, C channels, h, w plane size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from renderer.triplane import check_planes, resize_planes

BLUR_RADIUS = 3
"""Texels on each side of a blur kernel's centre."""


def _uniform(low: float, high: float, random: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=random))


def gaussian_kernel(sigma_x: float, sigma_y: float, angle: float) -> Tensor:
    """Turned Gaussian, [2r+1, 2r+1], sums to 1; sigmas in texels, angle in radians."""
    axis = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    kernel = torch.exp(-0.5 * ((along / sigma_x) ** 2 + (across / sigma_y) ** 2))
    return kernel / kernel.sum()


def blur(planes: Tensor, kernel: Tensor) -> Tensor:
    """Blurs every channel of [P, C, h, w] with one kernel; edges repeat their last texel."""
    p, c, h, w = planes.shape
    radius = kernel.shape[-1] // 2
    flat = F.pad(planes.reshape(p * c, 1, h, w), [radius] * 4, mode="replicate")
    return F.conv2d(flat, kernel.to(planes)[None, None]).reshape(p, c, h, w)


def resample(planes: Tensor, size: int, antialias: bool, down: str, up: str) -> Tensor:
    """Shrinks [P, C, h, w] to `size` and enlarges it again, on the corner-aligned lattice."""
    full = planes.shape[-1]
    if antialias:
        small = resize_planes(planes[None], size)[0]
    else:
        small = F.interpolate(planes, (size, size), mode=down, align_corners=True)
    return F.interpolate(small, (full, full), mode=up, align_corners=True)


def degrade(
    planes: Tensor,
    random: torch.Generator,
    *,
    probability: float = 0.5,
    max_blur: float = 1.5,
    min_scale: float = 0.5,
    max_noise: float = 0.05,
) -> Tensor:
    """Blur, resampling and noise, each with a probability, in random order.

    Args:
        planes: [P, C, h, w] in -1..1.
        random: a CPU generator; the result depends on it alone.
        probability: of each of the three.
        max_blur: largest sigma of the blur in texels.
        min_scale: smallest size of the resampled planes, as a share of h.
        max_noise: largest standard deviation of the noise.

    Returns:
        [P, C, h, w] in -1..1.
    """
    check_planes(planes, batched=False)
    kernels = ("bilinear", "bicubic")
    for step in torch.randperm(3, generator=random).tolist():
        if _uniform(0, 1, random) >= probability:
            continue
        if step == 0:
            low = min(0.2, max_blur)
            sigma_x, sigma_y = (_uniform(low, max_blur, random) for _ in range(2))
            kernel = gaussian_kernel(sigma_x, sigma_y, _uniform(0, math.pi, random))
            planes = blur(planes, kernel)
        elif step == 1:
            size = round(planes.shape[-1] * _uniform(min_scale, 1, random))
            choice = torch.randint(2, (3,), generator=random).tolist()
            planes = resample(
                planes, max(2, size), choice[0] == 1, kernels[choice[1]], kernels[choice[2]]
            )
        else:
            sigma = _uniform(0, max_noise, random)
            planes = planes + sigma * torch.randn(planes.shape, generator=random).to(planes)
    return planes.clamp(-1, 1)
