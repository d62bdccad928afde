"""Results of ray marching and of compositing: plain values, no operations.

Legend: R rays, S samples of all rays together, H W picture size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

# exp(-100) is far below fp32's resolution next to 1: capping changes nothing one can see.
MAX_OPTICAL_DEPTH = 100.0


@dataclass(frozen=True)
class Samples:
    """Samples of R rays, ray after ray, near to far within a ray.

    Attributes:
        ray: ray of each sample, [S] int64, non-decreasing.
        t: distance along the ray in world units, [S].
        offsets: first sample of each ray, [R + 1] int64; ray r owns [offsets[r], offsets[r+1]).
        step: distance between neighbouring samples, world units.
    """

    ray: Tensor
    t: Tensor
    offsets: Tensor
    step: float

    def __len__(self) -> int:
        return self.t.shape[0]


@dataclass(frozen=True)
class Rendered:
    """The pixels that rays became.

    Attributes:
        color: composited on the background, [R, 3] (or [H, W, 3]), sRGB in [0, 1].
        opacity: 1 − transmittance, [R] in [0, 1].
        depth: mean distance along the ray, weighted by contribution, world units, [R]; 0 where
            the ray met nothing.
    """

    color: Tensor
    opacity: Tensor
    depth: Tensor

    def reshape(self, *shape: int) -> Rendered:
        """Rays to an image: color [*shape, 3], opacity and depth [*shape]."""
        return Rendered(
            self.color.reshape(*shape, 3), self.opacity.reshape(shape), self.depth.reshape(shape)
        )


def step_length(steps: int) -> float:
    """Spacing at which ``steps`` samples cross the box along its diagonal, 2√3 / steps."""
    return 2 * math.sqrt(3) / steps
