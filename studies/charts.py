"""Charts of the forgetting study, drawn by matplotlib: maps of values, and curves with bands.

Letters: I identities, V measurements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from runtime.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Even in lightness, so that it reads without colour too.
RAMP, BLANK = "viridis", "gainsboro"


def require_matplotlib() -> None:
    """Raise UserError where matplotlib cannot be imported."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"the study's charts need matplotlib, which cannot be imported ({error}); install it "
            "with pip install 'triavatar[studies]'"
        ) from error


def pixels(figure: Figure) -> np.ndarray:
    """A figure as a picture, uint8 [H, W, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw_maps(
    maps: Mapping[str, np.ndarray],
    rays: Mapping[str, np.ndarray],
    scale: tuple[float, float],
) -> Figure:
    """Draw forgetting maps over the rays spent, more than three in two columns.

    Args:
        maps: title → PSNR in dB [I, V], one row per identity, nan before its first visit.
        rays: title → rays spent at each measurement, [V], increasing.
        scale: PSNR of the darkest and the lightest colour.
    """
    from matplotlib.figure import Figure

    across = 1 if len(maps) <= 3 else 2
    down = -(-len(maps) // across)
    figure = Figure((6.4 * across, 2.2 * down + 0.4), layout="constrained")
    grid = figure.subplots(down, across, sharex=True, squeeze=False)
    used = list(grid.flat[: len(maps)])
    for axes, (title, values) in zip(used, maps.items(), strict=True):
        # What was measured after some rays is the state that they led to.
        edges = np.concatenate([[0.0], rays[title] / 1e6])
        rows = np.arange(len(values) + 1) + 0.5
        mesh = axes.pcolormesh(edges, rows, values, cmap=RAMP, vmin=scale[0], vmax=scale[1])
        axes.set(title=title, facecolor=BLANK, yticks=[1, len(values)], ylim=rows[[-1, 0]])
    for axes in grid.flat[len(maps) :]:
        axes.remove()
    for axes in used[-across:]:
        axes.tick_params(labelbottom=True)
    figure.colorbar(mesh, ax=used, label="PSNR, dB")
    figure.supxlabel("million rays with gradients", fontsize="medium")
    figure.supylabel("identities in the order of their first visit", fontsize="medium")
    return figure


@dataclass(frozen=True)
class Curve:
    """A line with a band: label, positions [V], values [V] (nan where none), half-width [V]."""

    label: str
    x: np.ndarray
    y: np.ndarray
    band: np.ndarray


def draw_curves(panels: Mapping[str, Sequence[Curve]]) -> Figure:
    """Draw panels of curves of PSNR over rays, above one another."""
    from matplotlib.figure import Figure

    figure = Figure((6.4, 2.4 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
    for axes, (title, curves) in zip(grid.flat, panels.items(), strict=True):
        for curve in curves:
            x, low, high = curve.x / 1e6, curve.y - curve.band, curve.y + curve.band
            (line,) = axes.plot(x, curve.y, label=curve.label)
            axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        ends = np.concatenate([end for c in curves for end in (c.y - c.band, c.y + c.band)])
        # The few worst moments would take most of the height.
        axes.set_ylim(bottom=np.nanpercentile(ends, 1) - 0.1)
        axes.set(title=title, ylabel="PSNR, dB")
        axes.grid(color=BLANK)
    figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside right upper")
    figure.supxlabel("million rays", fontsize="medium")
    return figure
