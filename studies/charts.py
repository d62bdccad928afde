"""Charts drawn with pillow: maps of values over time, and curves with bands.

Letters: I identities, V measurements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from triavatar.sheets import INK, PAPER

# Dark to light and even in lightness, so that it reads without colour too; between them linear.
RAMP = ((48, 18, 92), (59, 82, 155), (44, 124, 142), (46, 164, 128), (130, 206, 84), (250, 230, 60))
BLANK = (225, 225, 225)
LINES = (
    (200, 60, 50),
    (225, 150, 30),
    (40, 120, 190),
    (110, 70, 160),
    (60, 150, 80),
    (70, 70, 70),
    (200, 90, 150),
)
WIDTH, LEFT, RIGHT = 640, 64, 76
# Between two columns of maps.
GAP = 56
# Drawn this much larger and then reduced: pillow's lines have hard edges.
FINE = 3


def ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colours uint8 [..., 3] of values; nan is blank, values outside [low, high] are clipped."""
    position = np.clip((values - low) / max(high - low, 1e-9), 0, 1) * (len(RAMP) - 1)
    known = np.isfinite(position)
    anchors = np.arange(len(RAMP))
    channels = [
        np.interp(np.where(known, position, 0), anchors, [color[k] for color in RAMP])
        for k in range(3)
    ]
    colors = np.stack(channels, -1).round().astype(np.uint8)
    colors[~known] = BLANK
    return colors


def draw_maps(
    maps: Mapping[str, np.ndarray],
    rays: Mapping[str, np.ndarray],
    scale: tuple[float, float],
) -> np.ndarray:
    """Forgetting maps over the rays spent, more than three in two columns; uint8 [H, W, 3].

    Args:
        maps: title → PSNR in dB [I, V], one row per identity, nan before its first visit.
        rays: title → rays spent at each measurement, [V], increasing.
        scale: PSNR of the darkest and the lightest colour.
    """
    font, large = ImageFont.load_default(size=12), ImageFont.load_default(size=15)
    plot = WIDTH - LEFT - RIGHT
    count = max(len(values) for values in maps.values())
    cell = int(np.clip(200 // count, 4, 14))
    panel = count * cell + 34
    across = 1 if len(maps) <= 3 else 2
    rows = -(-len(maps) // across)
    sheet = Image.new("RGB", (WIDTH + (across - 1) * (plot + GAP), rows * panel + 40), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (title, values) in enumerate(maps.items()):
        left = LEFT + index % across * (plot + GAP)
        top = index // across * panel + 26
        spent = rays[title]
        # A column shows the first measurement at or after it: the state its visit led to.
        at = (np.arange(plot) + 0.5) / plot * spent[-1]
        columns = np.searchsorted(spent, at).clip(max=len(spent) - 1)
        picture = ramp(values[:, columns], *scale).repeat(cell, axis=0)
        sheet.paste(Image.fromarray(picture), (left, top))
        draw.text((left, top - 20), title, fill=INK, font=large)
        for row in (0, len(values) - 1):
            middle = top + int((row + 0.5) * cell)
            draw.text((left - 6, middle), str(row + 1), fill=INK, font=font, anchor="rm")
    bottom = (rows - 1) * panel + 26 + count * cell
    _color_bar(draw, sheet, scale, 26, bottom, font)
    total = max(float(spent[-1]) for spent in rays.values()) / 1e6
    for column in range(across):
        left = LEFT + column * (plot + GAP)
        for share in (0, 0.5, 1):
            x, text = left + share * plot, f"{share * total:.3g}"
            draw.text((x, bottom + 5), text, fill=INK, font=font, anchor="ma")
    label = "million rays with gradients; rows: identities in the order of their first visit"
    middle = (LEFT + sheet.width - RIGHT) / 2
    draw.text((middle, bottom + 20), label, fill=INK, font=font, anchor="ma")
    return np.asarray(sheet)


def _color_bar(draw, sheet, scale: tuple[float, float], top: int, bottom: int, font) -> None:
    x, height = sheet.width - RIGHT + 16, min(bottom - top, 220)
    values = np.linspace(scale[1], scale[0], height)[:, None].repeat(14, axis=1)
    sheet.paste(Image.fromarray(ramp(values, *scale)), (x, top))
    for share in (0, 0.5, 1):
        text = f"{scale[1] + share * (scale[0] - scale[1]):.1f}"
        y = top + share * (height - 1)
        draw.text((x + 18, y), text, fill=INK, font=font, anchor="lm")
    draw.text((x, top - 8), "dB", fill=INK, font=font, anchor="lb")


@dataclass(frozen=True)
class Curve:
    """A line with a band: label, positions [V], values [V] (nan where none), half-width [V]."""

    label: str
    x: np.ndarray
    y: np.ndarray
    band: np.ndarray


def draw_curves(panels: Mapping[str, Sequence[Curve]]) -> np.ndarray:
    """Panels of curves of PSNR over rays, above one another; uint8 [H, W, 3]."""
    height = 230
    parts = [_panel(title, curves, height) for title, curves in panels.items()]
    return np.concatenate(parts)


def _panel(title: str, curves: Sequence[Curve], height: int) -> np.ndarray:
    top, bottom, left, right = 28, height - 34, LEFT, WIDTH - 130
    right_x = max(float(curve.x[-1]) for curve in curves)
    ends = np.concatenate([end for c in curves for end in (c.y - c.band, c.y + c.band)])
    ends = ends[np.isfinite(ends)]
    low, high = float(np.percentile(ends, 1)), float(ends.max())
    margin = 0.05 * max(high - low, 0.1)
    low, high = low - margin, high + margin

    def place(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
        across = left + (right - left) * x / right_x
        up = bottom - (bottom - top) * np.clip((y - low) / (high - low), 0, 1)
        return [(float(a) * FINE, float(b) * FINE) for a, b in zip(across, up, strict=True)]

    sheet = Image.new("RGB", (WIDTH * FINE, height * FINE), PAPER)
    draw = ImageDraw.Draw(sheet, "RGBA")
    ticks = _ticks(low, high)
    for value in ticks:
        draw.line(place(np.array([0, right_x]), np.array([value] * 2)), fill=BLANK, width=FINE)
    colors = [LINES[k % len(LINES)] for k in range(len(curves))]
    for curve, color in zip(curves, colors, strict=True):
        known = np.isfinite(curve.y)
        x, y, band = curve.x[known], curve.y[known], curve.band[known]
        draw.polygon(place(x, y + band) + place(x, y - band)[::-1], fill=(*color, 50))
        draw.line(place(x, y), fill=color, width=2 * FINE, joint="curve")
    sheet = sheet.resize((WIDTH, height), Image.Resampling.BOX)
    draw = ImageDraw.Draw(sheet)
    font, large = ImageFont.load_default(size=12), ImageFont.load_default(size=15)
    draw.text((left, 4), f"{title}, PSNR in dB", fill=INK, font=large)
    for value in ticks:
        y = bottom - (bottom - top) * (value - low) / (high - low)
        draw.text((left - 6, y), f"{value:g}", fill=INK, font=font, anchor="rm")
    for share in (0, 0.5, 1):
        x, text = left + share * (right - left), f"{share * right_x / 1e6:.3g}"
        draw.text((x, bottom + 4), text, fill=INK, font=font, anchor="ma")
    middle = (left + right) / 2
    draw.text((middle, bottom + 18), "million rays", fill=INK, font=font, anchor="ma")
    for index, (curve, color) in enumerate(zip(curves, colors, strict=True)):
        y = top + 8 + 18 * index
        draw.line([(right + 10, y), (right + 26, y)], fill=color, width=3)
        draw.text((right + 32, y), curve.label, fill=INK, font=font, anchor="lm")
    return np.asarray(sheet)


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between two."""
    rough = (high - low) / 5
    unit = 10.0 ** np.floor(np.log10(rough))
    step = float(next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough))
    first = int(np.ceil(low / step))
    return [round(k * step, 6) for k in range(first, int(np.floor(high / step)) + 1)]
