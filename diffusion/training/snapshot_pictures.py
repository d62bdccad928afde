"""Sample pictures of the training runs: true planes beside sampled ones, rendered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from captures.cameras import orbit_cameras
from renderer.decoder import TriplaneDecoder
from renderer.render import RenderSettings, build_occupancy, render_image

PICTURES = 4
"""Subjects in a sheet."""
VIEWS = 2
AZIMUTH_DEGREES = 60.0


def comparison_sheet(
    pairs: Sequence[tuple[Tensor, Tensor]], decoder: TriplaneDecoder, pixels: int
) -> np.ndarray:
    """Front and side view of true and sampled planes; a row for each subject.

    Args:
        pairs: for each subject the true planes and the sampled ones, both [3, C, H, H].
        decoder: of the fitted set.
        pixels: side of a view.

    Returns:
        uint8 [rows · pixels, 4 · pixels, 3]: true front and side, sampled front and side.
    """
    settings = RenderSettings(steps=max(64, 2 * pixels), grid=64)
    cameras = orbit_cameras(round(360 / AZIMUTH_DEGREES), size=pixels)
    rows = []
    for truth, sample in pairs:
        views = []
        for planes in (truth, sample):
            planes = planes.float().cpu()
            grid = build_occupancy(planes, decoder, settings)
            for view in range(VIEWS):
                image = render_image(planes, decoder, cameras[view], 1.0, settings, grid)
                views.append(image.color)
        rows.append(torch.cat(views, dim=1))
    sheet = torch.cat(rows, dim=0).clamp(0, 1)
    return (sheet * 255 + 0.5).to(torch.uint8).numpy()
