"""What a camera and a cut-out leave of a drawn picture: background, noise, JPEG, matte errors."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter


@dataclass
class Photograph:
    """How a picture was taken and cut out.

    Args:
        blur: standard deviation of the lens and the reduction, pixels.
        contrast, saturation: factors about the middle grey and about grey.
        balance: factors on R, G, B that white balance left over.
        noise: standard deviation of the sensor's noise in a middle grey, of 1.
        quality: of JPEG, 1..100.
        matte: "clean", "soft", "hard", "eroded" or "dilated".
        matte_shift: how far the matte's edge lies outside, pixels.
        wrong: how many patches the cut-out took or left wrongly.
    """

    blur: float
    contrast: float
    saturation: float
    balance: tuple[float, float, float]
    noise: float
    quality: int
    matte: str
    matte_shift: float
    wrong: int


def sample_photograph(rng: np.random.Generator) -> Photograph:
    """Settings of a passable photograph with a passable cut-out."""
    kind = ("clean", "soft", "hard", "eroded", "dilated")[
        int(rng.choice(5, p=[0.3, 0.2, 0.14, 0.18, 0.18]))
    ]
    shift = {"eroded": -1.0, "dilated": 1.0}.get(kind, 0.0) * rng.uniform(0.5, 1.8)
    return Photograph(
        blur=float(rng.uniform(0.0, 0.75)),
        contrast=float(np.clip(1 + 0.1 * rng.standard_normal(), 0.75, 1.3)),
        saturation=float(np.clip(1 + 0.12 * rng.standard_normal(), 0.6, 1.4)),
        balance=tuple(float(v) for v in 1 + 0.025 * rng.standard_normal(3)),
        noise=float(0.022 * rng.random() ** 2),
        quality=int(rng.integers(45, 97)),
        matte=kind,
        matte_shift=float(shift),
        wrong=int(rng.choice(3, p=[0.72, 0.2, 0.08])),
    )


def take(picture: np.ndarray, settings: Photograph, rng: np.random.Generator) -> np.ndarray:
    """The photograph of `picture`, cut out again.

    Args:
        picture: RGBA uint8 [H, W, 4], straight alpha.

    Returns:
        Like `picture`; where the matte is wrong, the background shows.
    """
    values = picture.astype(np.float64) / 255
    alpha = values[..., 3]
    seen = values[..., :3] * alpha[..., None]
    seen = seen + (1 - alpha[..., None]) * _background(picture.shape[0], rng)
    seen = gaussian_filter(seen, (settings.blur, settings.blur, 0))
    seen = seen * settings.balance
    grey = seen @ [0.299, 0.587, 0.114]
    seen = grey[..., None] + settings.saturation * (seen - grey[..., None])
    seen = 0.45 + settings.contrast * (seen - 0.45)
    # Shot noise grows with the root of the light; demosaicing spreads it.
    level = settings.noise * np.sqrt(np.clip(seen, 0.02, 1) / 0.5)
    grain = gaussian_filter(rng.standard_normal(seen.shape), (0.5, 0.5, 0))
    seen = np.clip(seen + level * grain / grain.std(), 0, 1)
    compressed = _jpeg(np.round(seen * 255).astype(np.uint8), settings.quality)
    matte = np.round(255 * _matte(alpha, settings, rng)).astype(np.uint8)
    out = np.concatenate([compressed, matte[..., None]], -1)
    out[matte == 0] = 0
    return out


def _background(size: int, rng: np.random.Generator) -> np.ndarray:
    """A wall, a gradient or something out of focus, sRGB [H, W, 3] in 0..1."""
    first, second = rng.uniform(0.05, 0.95, (2, 3))
    first = first.mean() + 0.5 * (first - first.mean())
    second = 0.5 * first + 0.5 * second
    y, x = np.meshgrid(*2 * [np.linspace(-1, 1, size)], indexing="ij")
    kind = rng.random()
    turn = rng.uniform(0, 2 * np.pi)
    share = 0.5 + 0.5 * (np.cos(turn) * x + np.sin(turn) * y)
    if kind > 0.55:
        noise = gaussian_filter(rng.standard_normal((size, size)), size * rng.uniform(0.04, 0.15))
        share = np.clip(0.5 + 0.4 * noise / noise.std(), 0, 1)
    elif kind < 0.25:
        share = np.zeros_like(x)
    return first + share[..., None] * (second - first)


def _jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="JPEG", quality=quality)
    buffer.seek(0)
    with Image.open(buffer) as image:
        return np.asarray(image.convert("RGB"))


def _matte(alpha: np.ndarray, settings: Photograph, rng: np.random.Generator) -> np.ndarray:
    """Opacity [H, W] as the cut-out finds it."""
    scale = len(alpha) / 128  # lengths are given for pictures of 128 pixels
    if settings.matte == "soft":
        alpha = gaussian_filter(alpha, scale * rng.uniform(0.6, 1.5))
    elif settings.matte == "hard":
        alpha = np.clip((gaussian_filter(alpha, 0.6 * scale) - 0.5) * 4 + 0.5, 0, 1)
    elif settings.matte_shift:
        solid = alpha > 0.5
        depth = np.where(solid, distance_transform_edt(solid), 1 - distance_transform_edt(~solid))
        alpha = np.clip(depth + scale * settings.matte_shift, 0, 1)
        alpha = gaussian_filter(alpha, 0.4 * scale)
    edge = np.argwhere((alpha > 0.2) & (alpha < 0.8))
    y, x = np.meshgrid(*2 * [np.arange(len(alpha))], indexing="ij")
    for _ in range(settings.wrong if len(edge) else 0):
        at = edge[int(rng.integers(len(edge)))]
        across, along = scale * rng.uniform(1.5, 5.5, 2)
        patch = np.clip(1.5 - np.hypot((y - at[0]) / across, (x - at[1]) / along), 0, 1)
        left = rng.random() < 0.5
        alpha = np.maximum(alpha, patch) if left else alpha * (1 - patch)
    return np.clip(alpha, 0, 1)
