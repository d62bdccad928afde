"""Several portraits of one person, drawn from as if they were one picture.

Legend: M portraits, S side of each in pixels, R rays.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from likeness.portrait.portrait import Portrait


@dataclass(frozen=True)
class Group:
    """Pixels of M portraits, each with its camera.

    It has what drawing pixels and comparing them ask of a :class:`Portrait`, with the pixels of
    all portraits in one row.
    """

    portraits: tuple[Portrait, ...]

    @property
    def size(self) -> int:
        """S of the first."""
        return self.portraits[0].size

    @cached_property
    def color(self) -> Tensor:
        """[M · S², 3] sRGB in [0, 1], on white."""
        return torch.cat([one.color.reshape(-1, 3) for one in self.portraits])

    @cached_property
    def alpha(self) -> Tensor:
        """[M · S²] in [0, 1]."""
        return torch.cat([one.alpha.flatten() for one in self.portraits])

    @cached_property
    def rays(self) -> tuple[Tensor, Tensor]:
        """Origins and directions [M · S², 3] of the pixels."""
        origins, directions = zip(*(one.rays for one in self.portraits), strict=True)
        return torch.cat(origins), torch.cat(directions)

    @cached_property
    def odds(self) -> Tensor:
        """[M · S²] how often each pixel is worth a ray."""
        return torch.cat([one.odds for one in self.portraits])
