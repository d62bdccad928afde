"""An avatar whose surface and colours are known: a ball, painted by where one is on it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from renderer.decoder import TriplaneDecoder
from renderer.render import RenderSettings
from renderer.triplane import PLANE_AXES
from triavatar.export.settings import ExportSettings, MeshSettings, SplatSettings

RADIUS = 0.6
"""Where the ball's density is 1 per world unit; it grows by the factor e every 1/120 inwards."""
STEEPNESS = 100.0
CONTRAST = 1.5

SETTINGS = ExportSettings(
    mesh=MeshSettings(triangles=3000, resolution=64, texture=256),
    splats=SplatSettings(count=2000, steps=10),
    views=8,
    view_size=48,
    march=RenderSettings(steps=384, grid=48),
)


def ball_planes(size: int = 65) -> Tensor:
    """Colour channels (1 + x)/2, (1 + y)/2, (1 + z)/2, ½; density channel r²/3; [3, 5, H, W]."""
    line = torch.linspace(-1, 1, size)
    along_h, along_w = torch.meshgrid(line, line, indexing="ij")
    planes = torch.zeros(3, 5, size, size)
    for plane, axes in zip(planes, PLANE_AXES, strict=True):
        for axis, coordinate in zip(axes, (along_w, along_h), strict=True):
            # Every coordinate lies on two of three planes, of which the mean is taken.
            plane[axis] = 0.75 * coordinate
            plane[4] += coordinate.square() / 2
        plane[:3] += 0.5
        plane[3] = 0.5
    return planes


def ball_decoder() -> TriplaneDecoder:
    """ln density = 100 · (0.36 − r²); red = sigmoid(1.5 x), green and blue the same of y and z."""
    decoder = TriplaneDecoder(5, 4, 8, frequencies=1)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.zero_()
        # So far to the right, softplus is the identity.
        decoder.density_in.weight[0, 0] = 1.0
        decoder.density_in.bias[0] = 50.0
        decoder.density_out.weight[0, 0] = -3 * STEEPNESS
        decoder.density_out.bias[0] = STEEPNESS * RADIUS**2 + 3 * STEEPNESS * 50.0
        for channel in range(4):
            decoder.color_in.weight[channel, channel] = 1.0
            decoder.color_hidden.weight[channel, channel] = 1.0
        for channel in range(3):
            decoder.color_out.weight[channel, channel] = 2 * CONTRAST
            decoder.color_out.weight[channel, 3] = -2 * CONTRAST
    return decoder.requires_grad_(False).eval()


def ball_color(points: np.ndarray) -> np.ndarray:
    """The paint at points [..., 3]."""
    return 1 / (1 + np.exp(-CONTRAST * points))
