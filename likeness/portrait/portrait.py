"""A portrait as likeness is measured against: pixels, what they cover, and where they are drawn.

Legend: S side of the portrait in pixels, R rays.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from captures.cameras import Cameras


@dataclass(frozen=True)
class Portrait:
    """A square portrait and its camera.

    Attributes:
        color: [S, S, 3] sRGB in [0, 1], on white.
        alpha: [S, S] in [0, 1].
        camera: one camera of S × S pixels.
    """

    color: Tensor
    alpha: Tensor
    camera: Cameras

    @classmethod
    def of(cls, rgba: np.ndarray, camera: Cameras) -> Portrait:
        """Take a picture, uint8 [S, S, 4], straight alpha; the camera is scaled to its size."""
        if rgba.ndim != 3 or rgba.shape[0] != rgba.shape[1] or rgba.shape[2] != 4:
            raise ValueError(f"a portrait must be [S, S, 4], got {list(rgba.shape)}")
        values = torch.from_numpy(np.array(rgba)).float() / 255
        alpha = values[..., 3]
        color = values[..., :3] * alpha[..., None] + (1 - alpha[..., None])
        return cls(color, alpha, camera[0].scaled_to(rgba.shape[1], rgba.shape[0]))

    @property
    def size(self) -> int:
        """S."""
        return self.camera.width

    def resized(self, size: int) -> Portrait:
        """Return the portrait at ``size`` × ``size`` pixels (area filter when it shrinks)."""
        if size == self.size:
            return self
        stacked = torch.cat([self.color, self.alpha[..., None]], dim=-1).permute(2, 0, 1)[None]
        small = F.interpolate(stacked, (size, size), mode="bilinear", antialias=True)
        small = small[0].permute(1, 2, 0)
        return Portrait(small[..., :3], small[..., 3], self.camera.scaled_to(size, size))

    def seen_from(self, camera: Cameras) -> Portrait:
        """Return the same pixels with another camera of the same size."""
        return Portrait(self.color, self.alpha, camera)

    @cached_property
    def rays(self) -> tuple[Tensor, Tensor]:
        """Origins and directions [S², 3] of the pixels, row by row."""
        return self.camera.image_rays(0)

    @cached_property
    def odds(self) -> Tensor:
        """[S²] how often each pixel is worth a ray: a tenth far from the subject, else 1."""
        margin = self.size // 16
        near = F.max_pool2d(self.alpha[None, None], 2 * margin + 1, 1, margin)[0, 0]
        return torch.where(near > 0.02, 1.0, 0.1).flatten()
