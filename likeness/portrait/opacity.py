"""Opacity of a portrait that stands on white and has none of its own."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

WHITE = 0.975


def with_opacity(picture: np.ndarray) -> np.ndarray:
    """Return a picture, uint8 [S, S, 3 | 4], as RGBA [S, S, 4], straight alpha.

    Without alpha, white that is joined to the border is background. One pixel at its edge is half
    transparent, as an antialiased picture's edge is on average.
    """
    if picture.shape[2] == 4:
        return picture
    white = torch.from_numpy(picture.min(axis=2).astype(np.float32) / 255 >= WHITE)
    outside = _joined_to_border(white)
    edge = F.max_pool2d(outside[None, None].float(), 3, 1, 1)[0, 0].bool() & ~outside
    alpha = torch.where(outside, 0.0, torch.where(edge, 0.5, 1.0))
    return np.dstack([picture, (alpha * 255 + 0.5).byte().numpy()])


def _joined_to_border(white: Tensor) -> Tensor:
    """The part of a mask [S, S] that is joined to its border."""
    outside = torch.zeros_like(white)
    outside[0], outside[-1], outside[:, 0], outside[:, -1] = True, True, True, True
    outside &= white
    while True:
        grown = F.max_pool2d(outside[None, None].float(), 3, 1, 1)[0, 0].bool() & white
        if torch.equal(grown, outside):
            return outside
        outside = grown
