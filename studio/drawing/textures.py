"""Textures: reading, tinting in linear light, mip pyramids."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from runtime.picture_files import open_picture

LUMINANCE = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)


def srgb_to_linear(x: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] → linear light in [0, 1]."""
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(x: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] → sRGB in [0, 1]; values outside are clipped."""
    x = np.clip(x, 0.0, 1.0)
    return np.where(x <= 0.0031308, x * 12.92, 1.055 * x ** (1 / 2.4) - 0.055)


SRGB_TO_LINEAR = srgb_to_linear(np.arange(256, dtype=np.float32) / 255).astype(np.float32)
_ENCODE_STEPS = 4096
LINEAR_TO_SRGB = np.round(
    linear_to_srgb(np.arange(_ENCODE_STEPS + 1) / _ENCODE_STEPS) * 255
).astype(np.uint8)

# Linear light in 16-bit steps, for averaging opaque texels as integers.
_SRGB_TO_STEPS = np.round(SRGB_TO_LINEAR * 65535).astype(np.uint32)
_STEPS_TO_SRGB = np.round(linear_to_srgb(np.arange(65536) / 65535) * 255).astype(np.uint8)


def encode(linear: np.ndarray) -> np.ndarray:
    """Linear light → sRGB uint8, by table (error below one level except in near-black)."""
    steps = np.clip(linear, 0, 1) * _ENCODE_STEPS + 0.5
    return LINEAR_TO_SRGB[steps.astype(np.int32)]


def read_texture(path: Path, size: int) -> np.ndarray:
    """Read a picture as RGBA uint8 [S, S, 4], reduced to at most `size` pixels a side.

    The result is kept and cannot be written to.

    Raises:
        UserError: missing or damaged picture.
    """
    return _read_small(path, size) if size <= 512 else _read_large(path, size)


def _read(path: Path, size: int) -> np.ndarray:
    rgba = open_picture(path, "texture").convert("RGBA")
    if max(rgba.size) > size:
        factor = size / max(rgba.size)
        shape = (max(1, round(rgba.width * factor)), max(1, round(rgba.height * factor)))
        rgba = rgba.resize(shape, Image.Resampling.BOX)
    out = np.asarray(rgba).copy()
    out.setflags(write=False)
    return out


# Decoding takes longer than drawing; small pictures of all assets fit into memory.
_read_small = lru_cache(maxsize=160)(_read)
_read_large = lru_cache(maxsize=24)(_read)


@dataclass
class Texture:
    """A mip pyramid: levels of uint8 RGBA [H, W, 4], sRGB, straight alpha, row 0 on top.

    Transparent texels carry the colour of their opaque neighbours, so filtering draws no fringe.
    """

    levels: list[np.ndarray]

    @property
    def has_alpha(self) -> bool:
        return bool((self.levels[0][..., 3] < 255).any())


def solid_texture(rgb: tuple[float, float, float]) -> Texture:
    """One texel of sRGB colour `rgb` in [0, 1]."""
    texel = np.array([*(round(255 * c) for c in rgb), 255], dtype=np.uint8)
    return Texture([texel.reshape(1, 1, 4)])


def build_mips(image: np.ndarray) -> Texture:
    """Pyramid of `image` (uint8 RGBA, any size), averaged in linear light, weighted by alpha."""
    levels = [image]
    if (image[..., 3] == 255).all():
        colour = _SRGB_TO_STEPS[image[..., :3]]
        while min(colour.shape[:2]) > 1:
            h, w = (colour.shape[0] // 2) * 2, (colour.shape[1] // 2) * 2
            c = colour[:h, :w]
            colour = (c[::2, ::2] + c[1::2, ::2] + c[::2, 1::2] + c[1::2, 1::2]) // 4
            solid = np.full((h // 2, w // 2, 1), 255, dtype=np.uint8)
            levels.append(np.concatenate([_STEPS_TO_SRGB[colour], solid], -1))
        return Texture(levels)
    colour = SRGB_TO_LINEAR[image[..., :3]]
    alpha = image[..., 3:].astype(np.float32) / 255
    while min(colour.shape[:2]) > 1:
        h, w = (colour.shape[0] // 2) * 2, (colour.shape[1] // 2) * 2
        a = [alpha[i:h:2, j:w:2] for i in (0, 1) for j in (0, 1)]
        c = [colour[i:h:2, j:w:2] for i in (0, 1) for j in (0, 1)]
        weight = [x + 1e-4 for x in a]
        total = weight[0] + weight[1] + weight[2] + weight[3]
        colour = sum(x * y for x, y in zip(c, weight, strict=True)) / total
        alpha = (a[0] + a[1] + a[2] + a[3]) / 4
        levels.append(np.concatenate([encode(colour), np.round(alpha * 255).astype(np.uint8)], -1))
    _bleed(levels)
    return Texture(levels)


def _bleed(levels: list[np.ndarray]) -> None:
    """Fill transparent texels with the colour of the next coarser level, coarse to fine."""
    for i in range(len(levels) - 2, -1, -1):
        hidden = levels[i][..., 3] == 0
        if hidden.any():
            levels[i] = levels[i].copy()
            y, x = np.nonzero(hidden)
            coarse = levels[i + 1]
            y2 = np.minimum(y // 2, coarse.shape[0] - 1)
            x2 = np.minimum(x // 2, coarse.shape[1] - 1)
            levels[i][y, x, :3] = coarse[y2, x2, :3]


def tint_towards(
    image: np.ndarray, colour: np.ndarray, mean: np.ndarray, contrast: float = 1.0
) -> np.ndarray:
    """Scale `image` in linear light so that the colour `mean` (linear) becomes `colour` (linear).

    Args:
        contrast: exponent on the departure from the mean (1 keeps it).
    """
    relative = (SRGB_TO_LINEAR[:, None] / np.maximum(mean, 1e-4)) ** contrast
    table = encode(relative * colour)  # [256, 3]: each channel maps by itself
    channels = [table[image[..., k], k] for k in range(3)]
    return np.stack([*channels, image[..., 3]], -1)


def shift_hue(image: np.ndarray, turn: float, saturation: float, value: float) -> np.ndarray:
    """Turn the hue of `image` by `turn` (1 = full circle), scale saturation and value."""
    hsv = np.asarray(Image.fromarray(image[..., :3]).convert("HSV")).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + 255 * turn) % 255
    hsv[..., 1] *= saturation
    hsv[..., 2] *= value
    rgb = Image.fromarray(np.clip(hsv, 0, 255).astype(np.uint8), "HSV").convert("RGB")
    return np.concatenate([np.asarray(rgb), image[..., 3:]], -1)
