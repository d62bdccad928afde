"""Convolutional parts of the triplane U-Nets.

Letters: B batch, P = 3 planes, C channels in, O channels out, H plane size, E embedding width.
All maps are roll-outs [B, C, H, 3·H]: the planes (x,y), (x,z), (y,z) side by side, first coordinate
along W, second along H.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from renderer.triplane import rollout, unroll

Layer = TypeVar("Layer", bound=nn.Module)


class GroupNorm(nn.GroupNorm):
    """Group normalisation in float32 for any number of channels.

    At most 32 groups, and two channels or more in each; channel counts that 32 does not divide get
    the largest number of groups that fits.
    """

    def __init__(self, channels: int) -> None:
        largest = max(1, min(32, channels // 2))
        groups = next(n for n in range(largest, 0, -1) if channels % n == 0)
        super().__init__(groups, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, …] → same shape and dtype."""
        weight, bias = self.weight.float(), self.bias.float()
        return F.group_norm(x.float(), self.num_groups, weight, bias, self.eps).to(x.dtype)


def zero_init(module: Layer) -> Layer:
    """Sets a layer's weight and bias to zero, so that its branch starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class TriplaneConv(nn.Module):
    """3D-aware 3×3 convolution (Rodin, arXiv 2212.06135; RodinHD, section 4).

    Each plane sees, beside itself, the two other planes: a plane that shares one coordinate is
    averaged along the coordinate it does not share and expanded back, so that features of the same
    3D place meet. In words: concatenate [own; mean that depends on the W coordinate; mean that
    depends on the H coordinate] to 3C channels, and convolve every plane by itself (zero padding
    at its borders) with one weight [O, 3C, 3, 3].

    An expanded mean is constant along one axis, so its convolution is a one-dimensional one; the
    module computes it that way, at about a third of the cost of the concatenation and equal to it
    up to rounding.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        reference = nn.Conv2d(3 * in_channels, out_channels, 3, padding=1)
        self.weight = reference.weight
        self.bias = reference.bias
        self.in_channels = in_channels
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, 3·H] → [B, O, H, 3·H]."""
        planes = unroll(x)
        b, p, c, h, w = planes.shape
        if h != w:
            raise ValueError(f"the 3D-aware convolution needs square planes, got {h} x {w}")
        own_weight, along_w_weight, along_h_weight = self.weight.split(c, dim=1)
        own = F.conv2d(planes.reshape(b * p, c, h, w), own_weight, self.bias, padding=1)

        along_w, along_h = shared_means(planes)
        # [B·P, O, H, W]: the kernel's rows are summed where the map is constant along H, its
        # columns where it is constant along W.
        columns = _expanded_conv(along_w.reshape(b * p, c, w), along_w_weight)
        rows = _expanded_conv(along_h.reshape(b * p, c, h), along_h_weight.transpose(2, 3))
        out = own + columns + rows.transpose(2, 3)
        return rollout(out.reshape(b, p, self.out_channels, h, w))


def shared_means(planes: Tensor) -> tuple[Tensor, Tensor]:
    """What each plane sees of the two others.

    Args:
        planes: [B, P, C, H, H].

    Returns:
        Two [B, P, C, H]: the mean that depends on a plane's W coordinate (x, x, y for the planes
        xy, xz, yz) and the one that depends on its H coordinate (y, z, z). Each comes from the
        other plane that holds this coordinate, averaged over that plane's second one.
    """
    over_h = planes.mean(dim=3)  # by W coordinate: x of xy, x of xz, y of yz
    over_w = planes.mean(dim=4)  # by H coordinate: y of xy, z of xz, z of yz
    along_w = torch.stack((over_h[:, 1], over_h[:, 0], over_w[:, 0]), dim=1)
    along_h = torch.stack((over_h[:, 2], over_w[:, 2], over_w[:, 1]), dim=1)
    return along_w, along_h


def _expanded_conv(line: Tensor, weight: Tensor) -> Tensor:
    """3×3 convolution of ``line`` [N, C, L] repeated L times along a new axis before the last.

    Args:
        line: values along the last axis.
        weight: [O, C, 3, 3], rows along the repeated axis.

    Returns:
        [N, O, L, L]. Its first and last row differ from the others: there one kernel row lies on
        the zero padding.
    """
    n, _, length = line.shape
    total = weight.sum(dim=2)
    kernels = torch.cat((total - weight[:, :, 0], total, total - weight[:, :, 2]))
    first, middle, last = F.conv1d(line, kernels, padding=1).unsqueeze(2).chunk(3, dim=1)
    middle = middle.expand(-1, -1, length - 2, -1)
    return torch.cat((first, middle, last), dim=2)


def conv3x3(in_channels: int, out_channels: int, plane_aware: bool) -> nn.Module:
    """A 3×3 convolution of a roll-out: 3D-aware, or plain over the three planes side by side."""
    if plane_aware:
        return TriplaneConv(in_channels, out_channels)
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def halve(x: Tensor) -> Tensor:
    """[B, C, H, 3·H] → [B, C, H/2, 3·H/2] by averaging 2×2 texels (planes never mix)."""
    return F.avg_pool2d(x, 2)


def double(x: Tensor) -> Tensor:
    """[B, C, H, 3·H] → [B, C, 2H, 6·H] by repeating texels."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class ResBlock(nn.Module):
    """Residual block with scale-shift normalisation (Dhariwal & Nichol, arXiv 2105.05233).

    Args:
        in_channels: C.
        out_channels: O.
        embedding_width: E.
        plane_aware: 3D-aware convolutions.
        resample: `down` and `up` change the resolution of both branches by two.
        dropout: probability before the last convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_width: int,
        *,
        plane_aware: bool = False,
        resample: str | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.resize = {None: nn.Identity(), "down": halve, "up": double}[resample]
        self.norm1 = GroupNorm(in_channels)
        self.conv1 = conv3x3(in_channels, out_channels, plane_aware)
        self.embedding = nn.Linear(embedding_width, 2 * out_channels)
        self.norm2 = GroupNorm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero_init(conv3x3(out_channels, out_channels, plane_aware))
        self.skip = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Conv2d(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Maps [B, C, H, 3·H] and activated embedding [B, E] → [B, O, H', 3·H']."""
        hidden = self.conv1(self.resize(F.silu(self.norm1(x))))
        scale, shift = self.embedding(embedding)[:, :, None, None].chunk(2, dim=1)
        hidden = self.norm2(hidden) * (1 + scale) + shift
        hidden = self.conv2(self.dropout(F.silu(hidden)))
        return self.skip(self.resize(x)) + hidden


class Resample(nn.Module):
    """Change of resolution by one plain convolution; takes the embedding and ignores it."""

    def __init__(self, channels: int, direction: str) -> None:
        super().__init__()
        self.up = direction == "up"
        self.conv = nn.Conv2d(channels, channels, 3, stride=1 if self.up else 2, padding=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """[B, C, H, 3·H] → [B, C, 2H, 6·H] or [B, C, H/2, 3·H/2]."""
        return self.conv(double(x) if self.up else x)
