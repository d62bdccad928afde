"""Fabrics: patterns of stripes, checks, dots and prints as pictures."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from studio.drawing.textures import encode, srgb_to_linear
from studio.people.subject import Subject

PATTERNS = (
    "plain",
    "striped",
    "pinstriped",
    "checked",
    "gingham",
    "dotted",
    "zigzag",
    "camouflage",
    "colour-block",
    "printed",
    "logo",
)
# The fabric's picture is about 2.4 world units wide and half as high (studio.clothes.garments).
_WIDTH, _HEIGHT, _TOP = 2.4, 1.2, 0.15


def fabric(subject: Subject, rng: np.random.Generator, size: int, front: bool) -> np.ndarray:
    """The subject's fabric, uint8 RGBA [size / 2, size, 4]; prints are on the front only."""
    h, w = size // 2, size
    x = ((np.arange(w) + 0.5) / w - 0.5)[None, :] * _WIDTH + np.zeros((h, 1))
    y = _TOP - ((np.arange(h) + 0.5) / h)[:, None] * _HEIGHT + np.zeros((1, w))
    scale = subject.pattern_scale
    first, second, third = (
        srgb_to_linear(np.array(c))
        for c in (subject.clothes_colour, subject.clothes_colour2, subject.clothes_trim)
    )
    share, tint = _cover(subject.pattern, x, y, scale, rng, front, subject.index)
    colour = first * (1 - share[..., None]) + second * share[..., None]
    colour = colour * (1 - tint[..., None]) + third * tint[..., None]
    weave = 1 + 0.035 * rng.standard_normal((h, w))
    folds = gaussian_filter(rng.standard_normal((h, w)), (size / 36, size / 60))
    light = weave * (1 + 0.03 * folds / folds.std())
    rgb = encode(colour * light[..., None])
    return np.concatenate([rgb, np.full((h, w, 1), 255, dtype=np.uint8)], -1)


def _edge(value: np.ndarray, width: float = 0.004) -> np.ndarray:
    """Soft step: 0 below zero, 1 above."""
    return np.clip(0.5 + value / width, 0, 1)


def _wave(t: np.ndarray, period: float, duty: float) -> np.ndarray:
    """Soft bands of `duty` per `period`."""
    return _edge(0.5 * duty * period - np.abs((t % period) - 0.5 * period))


def _cover(kind, x, y, scale, rng, front, index) -> tuple[np.ndarray, np.ndarray]:
    """Cover of the second and of the third colour, each [h, w] in 0..1."""
    none = np.zeros_like(x)
    if kind == "striped":
        return _wave(y, 0.14 * scale, 0.45), none
    if kind == "pinstriped":
        return 0.75 * _wave(x, 0.075 * scale, 0.16), none
    if kind == "checked":
        bands = 0.55 * _wave(x, 0.2 * scale, 0.42) + 0.45 * _wave(y, 0.2 * scale, 0.42)
        lines = np.maximum(_wave(x, 0.2 * scale, 0.05), _wave(y, 0.2 * scale, 0.05))
        return bands, 0.6 * lines
    if kind == "gingham":
        return 0.5 * _wave(x, 0.09 * scale, 0.5) + 0.5 * _wave(y, 0.09 * scale, 0.5), none
    if kind == "dotted":
        step = 0.11 * scale
        row = np.floor(y / step)
        u = ((x + 0.5 * step * (row % 2)) % step) - 0.5 * step
        v = (y % step) - 0.5 * step
        return _edge(0.24 * step - np.hypot(u, v)), none
    if kind == "zigzag":
        step = 0.12 * scale
        shifted = y + np.abs((x % step) - 0.5 * step)
        return _wave(shifted, 0.13 * scale, 0.45), none
    if kind == "camouflage":
        fields = [gaussian_filter(rng.standard_normal(x.shape), 22 * scale) for _ in range(2)]
        a, b = (field / field.std() for field in fields)
        return _edge(a - 0.3, 0.08), _edge(b - 0.7, 0.08)
    if kind == "colour-block":
        return _edge(-0.24 * scale - y), _edge(0.02 - np.abs(y + 0.24 * scale))
    if kind == "printed" and front:
        return _print(x, y + 0.36, 0.16, index), none
    if kind == "logo" and front:
        return _print(x - 0.24, y + 0.29, 0.045, index), none
    return none, none


def _print(x: np.ndarray, y: np.ndarray, size: float, index: int) -> np.ndarray:
    """One of several emblems of half-width `size` around the origin."""
    radius, angle = np.hypot(x, y), np.arctan2(x, y)
    kind = index % 6
    if kind == 0:  # star: two lines meet at each tip and at each notch
        wedge = np.abs((angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
        tip, notch = (
            np.array([size, 0.0]),
            0.4 * size * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)]),
        )
        along = notch - tip
        px, py = radius * np.cos(wedge) - tip[0], radius * np.sin(wedge)
        return _edge((along[1] * px - along[0] * py) / -np.hypot(*along))
    if kind == 1:  # ring and disc
        return np.maximum(
            _edge(0.16 * size - np.abs(radius - 0.84 * size)), _edge(0.5 * size - radius)
        )
    if kind == 2:  # heart
        u, v = x / size * 1.15, y / size * 1.15 + 0.1
        return _edge(u**2 * v**3 - (u**2 + v**2 - 0.8) ** 3, 0.006)
    if kind == 3:  # mountains
        peaks = np.maximum(
            0.9 * size - 1.4 * np.abs(x + 0.3 * size), 0.4 * size - np.abs(x - 0.5 * size)
        )
        return _edge(peaks - y - 0.3 * size) * _edge(y + 0.7 * size) * _edge(size - np.abs(x))
    if kind == 4:  # three bars
        return _wave(y, 0.66 * size, 0.5) * _edge(size - np.abs(x)) * _edge(size - np.abs(y))
    return _edge(size - np.abs(x) - np.abs(y)) * (1 - _edge(0.55 * size - np.abs(x) - np.abs(y)))
