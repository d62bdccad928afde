"""The portrait's features where the portrait shows them: projected into the planes.

Letters: B batch, A channels, S side of a feature map, H plane size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.networks.blocks import GroupNorm

if TYPE_CHECKING:
    from diffusion.conditioning.features import PortraitFeatures

WHOLE_BOX = (-1.0, -1.0, 1.0, 1.0)

Window = tuple[float, float, float, float]
"""What a portrait shows of the plane z = 0: left, bottom, right, top, in units of the box."""


class PixelAligned(nn.Module):
    """Feature maps of a frontal portrait → channels of a roll-out.

    A texel of the xy plane gets the features of the pixel it is seen at. The portrait looks along
    z: for xz, which holds no y, the column's mean stands in, and for yz the row's.

    Args:
        feature_channels, feature_sizes: of the maps, finest first.
        channels: A.
        window: what the portrait shows of the plane z = 0.
    """

    def __init__(
        self,
        feature_channels: Sequence[int],
        feature_sizes: Sequence[int],
        channels: int,
        window: Sequence[float] = WHOLE_BOX,
    ) -> None:
        super().__init__()
        left, bottom, right, top = window
        if not (left < right and bottom < top):
            raise ValueError(f"portrait_window {tuple(window)} is not left, bottom, right, top")
        self.channels = channels
        self.window = (left, bottom, right, top)
        self.norms = nn.ModuleList(GroupNorm(count) for count in feature_channels)
        self.maps = nn.ModuleList(nn.Conv2d(count, channels, 1) for count in feature_channels)

    def forward(self, features: PortraitFeatures | None, drop: Tensor, size: int) -> Tensor:
        """Features of B portraits (None: all dropped), drop [B] bool → [B, A, H, 3·H].

        Zero where the portrait is dropped and outside its picture.
        """
        if features is None:
            return torch.zeros(len(drop), self.channels, size, 3 * size, device=drop.device)
        grid = self._grid(size, drop.device)
        front: Tensor | None = None
        for norm, layer, level in zip(self.norms, self.maps, features.levels, strict=True):
            seen = layer(norm(level))
            if seen.shape[-1] > size:
                seen = F.adaptive_avg_pool2d(seen, size)
            placed = F.grid_sample(
                seen, grid.to(seen).expand(len(seen), -1, -1, -1), align_corners=False
            )
            front = placed if front is None else front + placed
        assert front is not None
        columns = front.mean(dim=2, keepdim=True).expand_as(front)  # by x, for every z
        rows = front.mean(dim=3)[:, :, None, :].expand_as(front)  # by y along W, for every z
        planes = torch.cat((front, columns, rows), dim=3)
        return planes * (~drop)[:, None, None, None].to(planes)

    def _grid(self, size: int, device: torch.device) -> Tensor:
        """[1, H, H, 2]: where each texel of the xy plane is seen in the picture, in -1..1."""
        left, bottom, right, top = self.window
        axis = torch.linspace(-1, 1, size, device=device)
        across = (axis - left) / (right - left) * 2 - 1
        down = (top - axis) / (top - bottom) * 2 - 1
        rows, columns = torch.meshgrid(down, across, indexing="ij")
        return torch.stack((columns, rows), dim=-1)[None]
