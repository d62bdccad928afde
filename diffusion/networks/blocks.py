"""Convolutional parts of the triplane U-Nets.

Letters: B batch, P = 3 planes, C channels in, O channels out, H plane size, E embedding width.
All maps are roll-outs [B, C, H, 3·H]: the planes (x,y), (x,z), (y,z) side by side, first coordinate
along W, second along H.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from renderer.triplane import rollout, unroll

Layer = TypeVar("Layer", bound=nn.Module)


class GroupNorm(nn.GroupNorm):
    """Group normalisation in the precision of its input, for any number of channels.

    At most 32 groups, and two channels or more in each; channel counts that 32 does not divide get
    the largest number of groups that fits. PyTorch sums up in float32 whatever the input's
    precision; autocast would copy the input to float32 on top, a third of a model's activations.
    """

    def __init__(self, channels: int) -> None:
        largest = max(1, min(32, channels // 2))
        groups = next(n for n in range(largest, 0, -1) if channels % n == 0)
        super().__init__(groups, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, …] → same shape and dtype."""
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            return F.group_norm(x, self.num_groups, weight, bias, self.eps)


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
    at its borders), with one weight [O, 3C, 3, 3] for all planes or with one for each.

    An expanded mean is constant along one axis, so its convolution is a one-dimensional one; the
    module computes it that way, at about a third of the cost of the concatenation and equal to it
    up to rounding. The memory format (channels last or not) is kept.

    Args:
        in_channels: C.
        out_channels: O.
        separate: a weight for each plane, as released, where planes otherwise share one.
    """

    def __init__(self, in_channels: int, out_channels: int, separate: bool = False) -> None:
        super().__init__()
        layers = [
            nn.Conv2d(3 * in_channels, out_channels, 3, padding=1)
            for _ in range(3 if separate else 1)
        ]
        weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
        self.weight = nn.Parameter(torch.stack(weights)) if separate else weights[0]
        self.bias = nn.Parameter(torch.stack(biases)) if separate else biases[0]
        self.separate = separate
        self.in_channels = in_channels
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, 3·H] → [B, O, H, 3·H]."""
        planes = unroll(x)
        b, h, w = planes.shape[0], *planes.shape[-2:]
        if h != w or h < 2:
            raise ValueError(f"the 3D-aware convolution needs square planes, got {h} x {w}")
        last = channels_last(x)
        along = shared_means(planes)
        if not self.separate:
            return unfold_planes(_aware(planes, along, self.weight, self.bias, last), b, last)
        outputs = [
            _aware(
                planes[:, plane : plane + 1],
                (along[0][:, plane : plane + 1], along[1][:, plane : plane + 1]),
                self.weight[plane],
                self.bias[plane],
                last,
            )
            for plane in range(3)
        ]
        return torch.cat(outputs, dim=3)


def _aware(
    planes: Tensor, along: tuple[Tensor, Tensor], weight: Tensor, bias: Tensor, last: bool
) -> Tensor:
    """3D-aware convolution of planes [B, P', C, H, H] and their means, → [B·P', O, H, H]."""
    own_weight, along_w_weight, along_h_weight = weight.split(planes.shape[2], dim=1)
    out = F.conv2d(fold_planes(planes, last), own_weight, bias, padding=1)
    # The maps constant along H, then those constant along W. Their first and last row (column)
    # differ from the others: there one row (column) of the kernel lies on the zero padding.
    columns, column_edges = _expanded_conv(along[0], along_w_weight)
    rows, row_edges = _expanded_conv(along[1], along_h_weight.transpose(2, 3))
    out = out + columns[:, :, None, :] + rows[:, :, :, None]
    end = out.shape[-1] - 1
    out[:, :, ::end] -= column_edges.transpose(1, 2)
    out[:, :, :, ::end] -= row_edges.permute(0, 2, 3, 1)
    return out


def shared_means(planes: Tensor) -> tuple[Tensor, Tensor]:
    """Return what each plane sees of the two others.

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


def _expanded_conv(lines: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """3×3 convolution of ``lines`` repeated along a new axis (N = B·P lines of length L).

    Args:
        lines: [B, P, C, L].
        weight: [O, C, 3, 3], its rows along the repeated axis.

    Returns:
        The result [N, O, L] away from the repeated axis' ends, and what it has too much at its
        first and last place, [N, 2, O, L].
    """
    out_channels, length = weight.shape[0], lines.shape[-1]
    line = F.pad(lines.flatten(0, 1).transpose(1, 2), (0, 0, 1, 1))  # [N, L + 2, C]
    taps = torch.cat([line[:, i : i + length] for i in range(3)], dim=2)
    kernels = torch.cat((weight.sum(dim=2), weight[:, :, 0], weight[:, :, 2]))  # [3·O, C, 3]
    result = taps @ kernels.permute(2, 1, 0).flatten(0, 1)  # [N, L, 3·O]
    parts = result.unflatten(2, (3, out_channels)).permute(0, 2, 3, 1)
    return parts[:, 0], parts[:, 1:]


def channels_last(x: Tensor) -> bool:
    """Return whether a map [B, C, H, W] lies in memory as [B, H, W, C]."""
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def fold_planes(planes: Tensor, last: bool) -> Tensor:
    """[B, P, C, H, W] → [B·P, C, H, W], channels last if asked."""
    if last:
        return planes.permute(0, 1, 3, 4, 2).flatten(0, 1).permute(0, 3, 1, 2)
    return planes.flatten(0, 1)


def unfold_planes(maps: Tensor, batch: int, last: bool) -> Tensor:
    """[B·P, C, H, W] → roll-out [B, C, H, P·W], channels last if asked."""
    planes = maps.unflatten(0, (batch, -1))
    if last:
        return planes.permute(0, 3, 1, 4, 2).flatten(2, 3).permute(0, 3, 1, 2)
    return rollout(planes)


PlaneConvs = Literal["shared", "released"]
"""Which convolutions of a 3D-aware level are 3D-aware: all of them, with one weight for the three
planes, or, as in the released model, the second of each residual block, with a weight for each."""


def conv3x3(
    in_channels: int, out_channels: int, aware: PlaneConvs | None, second: bool = False
) -> nn.Module:
    """A 3×3 convolution of a roll-out: 3D-aware, or plain over the three planes side by side.

    Args:
        in_channels, out_channels: of the roll-out.
        aware: how the level is 3D-aware; None where it is not.
        second: it is the second convolution of a residual block.
    """
    if aware == "shared" or (aware == "released" and second):
        return TriplaneConv(in_channels, out_channels, separate=aware == "released")
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
        aware: how its convolutions are 3D-aware; None: not at all.
        resample: `down` and `up` change the resolution of both branches by two.
        dropout: probability before the last convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_width: int,
        *,
        aware: PlaneConvs | None = None,
        resample: str | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.resize = {None: nn.Identity(), "down": halve, "up": double}[resample]
        self.norm1 = GroupNorm(in_channels)
        self.conv1 = conv3x3(in_channels, out_channels, aware)
        self.embedding = nn.Linear(embedding_width, 2 * out_channels)
        self.norm2 = GroupNorm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero_init(conv3x3(out_channels, out_channels, aware, second=True))
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
