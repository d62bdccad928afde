"""Position encoding: the plane a texel is of, and where in the box it lies.

Letters: F features, H plane size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from renderer.triplane import PLANE_AXES, rollout

FREQUENCIES = (1, 2, 4)
"""Of the sines and cosines, in quarter turns from the box's centre to its face."""
POSITION_FEATURES = 3 + 3 * 2 * len(FREQUENCIES)
"""F: one of three for the plane, then sines and cosines for each of x, y, z."""


def texel_positions(size: int, device: torch.device | str = "cpu") -> Tensor:
    """Return [1, F, H, 3·H]: plane and place of every texel of a roll-out, each in -1..1.

    A coordinate that a plane doesn't hold is left at zero. The roll-out of a triplane looks alike
    everywhere to convolutions and attention; with these channels they can tell hair from chin.
    """
    coordinate = torch.linspace(-1, 1, size, device=device) * (math.pi / 2)
    waves = torch.stack([f(k * coordinate) for k in FREQUENCIES for f in (torch.sin, torch.cos)])
    count = len(waves)
    planes = torch.zeros(3, POSITION_FEATURES, size, size, device=device)
    for plane, (along_w, along_h) in enumerate(PLANE_AXES):
        planes[plane, plane] = 1
        first, second = 3 + count * along_w, 3 + count * along_h
        planes[plane, first : first + count] = waves[:, None, :]
        planes[plane, second : second + count] = waves[:, :, None]
    return rollout(planes[None])
