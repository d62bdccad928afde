"""Camera rigs around the head."""

from __future__ import annotations

import math

import numpy as np
import torch

from captures.cameras import Cameras, look_at, pinhole

PORTRAIT_FOV = 28.84  # degrees: a 70 mm lens on a 36 mm sensor
DISTANCE = 3.7  # world units: the whole bust stays in the picture


def rig_directions(n_views: int, low_degrees: float, high_degrees: float) -> np.ndarray:
    """Unit vectors [n, 3] from the head to the cameras; the first is straight ahead (+z).

    The others follow the R2 low-discrepancy sequence over azimuth and sine of elevation, so any
    number of leading views is well spread.
    """
    ratio = 1.32471795724474602596  # the plastic number
    i = np.arange(1, n_views)
    azimuth = 2 * np.pi * ((0.5 + i / ratio) % 1.0)
    low, high = math.sin(math.radians(low_degrees)), math.sin(math.radians(high_degrees))
    y = low + (high - low) * ((0.5 + i / ratio**2) % 1.0)
    r = np.sqrt(1 - y * y)
    rest = np.stack([r * np.sin(azimuth), y, r * np.cos(azimuth)], -1)
    return np.concatenate([[[0.0, 0.0, 1.0]], rest])


def head_rig(
    n_views: int,
    size: int,
    fov_degrees: float = PORTRAIT_FOV,
    distance: float = DISTANCE,
    low_degrees: float = -35.0,
    high_degrees: float = 60.0,
) -> Cameras:
    """Cameras looking at the origin; view 0 is the frontal portrait.

    Args:
        n_views: number of cameras.
        size: picture width and height in pixels.
        fov_degrees: full field of view.
        distance: from the origin in world units.
        low_degrees, high_degrees: range of elevations.
    """
    eye = distance * torch.from_numpy(rig_directions(n_views, low_degrees, high_degrees))
    return pinhole(look_at(eye, torch.zeros(3, dtype=eye.dtype)), fov_degrees, size)
