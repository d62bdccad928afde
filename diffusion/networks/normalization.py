"""Normalised triplanes, as the diffusion models see them: values of one spread in every channel.

Letters: B batch, P = 3 planes, C channels, H the models' plane size, h any smaller one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from renderer.triplane import resize_planes, rollout

NormalizationName = Literal["none", "channel", "mean"]

SMALLEST_STD = 1e-3
"""A channel in which all subjects agree keeps its (tiny) differences finite."""


class PlaneNormalization(ModelMixin, ConfigMixin):
    """Maps triplanes to centred values of one standard deviation, and back.

    The statistics are those of the training triplanes and travel in the model's folder. Nothing is
    clipped on the way in: people nobody trained on leave the range of those that were.

    With `plane_size` 1 the centre is a constant of each plane's channel. Otherwise it is the mean
    triplane: triplanes that were fitted from a common start share most of their fine detail, which
    a model of few subjects or steps would have to learn by heart, and which shrunken planes lose.

    Args:
        plane_channels: C.
        plane_size: H of the mean triplane, or 1.
        spread: standard deviation of the normalised values.

    Attributes:
        mean: [P, C, H, H] or [P, C, 1, 1], in -1..1.
        std: [C], standard deviation of the triplanes around the mean.
        residual_std: [C], standard deviation of the values around those that a model starts from
            (an expected triplane, or enlarged small planes); `spread` unless it was measured.
    """

    @register_to_config
    def __init__(
        self, plane_channels: int = 32, plane_size: int = 128, spread: float = 0.5
    ) -> None:
        super().__init__()
        self.spread = spread
        shape = (3, plane_channels, plane_size, plane_size)
        self.mean = nn.Parameter(torch.zeros(shape), requires_grad=False)
        self.std = nn.Parameter(torch.ones(plane_channels), requires_grad=False)
        self.residual_std = nn.Parameter(torch.full((plane_channels,), spread), requires_grad=False)

    @classmethod
    def identity(cls, plane_channels: int) -> PlaneNormalization:
        """Values are the planes themselves, as published."""
        return cls(plane_channels, plane_size=1, spread=1.0)

    @classmethod
    def of(
        cls, triplanes: Iterable[Tensor], size: int, name: NormalizationName, spread: float = 0.5
    ) -> PlaneNormalization:
        """Measure triplanes [P, C, H', H'], each resized to `size` first.

        Args:
            triplanes: of the training subjects.
            size: H.
            name: centre on constants ("channel") or on the mean triplane ("mean"); "none" measures
                nothing.
            spread: standard deviation of the normalised values.

        Raises:
            ValueError: there are none.
        """
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for planes in triplanes:
            planes = resize_planes(planes[None].float(), size)[0].double()
            count, total, squares = count + 1, total + planes, squares + planes.square()
        if count == 0:
            raise ValueError("the statistics of no triplanes")
        mean, squares = total / count, squares / count
        if name == "channel":
            mean, squares = mean.mean((2, 3), keepdim=True), squares.mean((2, 3), keepdim=True)
        variance = (squares - mean.square()).mean(dim=(0, 2, 3))
        model = cls(plane_channels=mean.shape[1], plane_size=mean.shape[-1], spread=spread)
        with torch.no_grad():
            model.mean.copy_(mean)
            model.std.copy_(variance.clamp(min=0).sqrt().clamp(min=SMALLEST_STD))
        return model

    @property
    def has_mean_triplane(self) -> bool:
        """Whether the centre is a whole triplane, which tells a network which texel is what."""
        return self.mean.shape[-1] > 1

    def guide(self) -> Tensor:
        """The mean triplane as input of a network: rolled out [1, C, H, 3·H], of unit spread."""
        return rollout(self.mean[None] / self.mean.std().clamp(min=1e-6)).detach()

    def _at(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.mean[None]
        if self.has_mean_triplane:
            mean = resize_planes(mean, planes.shape[-1])
        return mean.to(planes), (self.std.to(planes) / self.spread)[:, None, None]

    def normalized(self, planes: Tensor) -> Tensor:
        """Planes [B, P, C, h, h] in -1..1 → values of about `spread`, same shape, not clipped."""
        mean, scale = self._at(planes)
        return (planes - mean) / scale

    def planes(self, values: Tensor) -> Tensor:
        """Values [B, P, C, h, h] → planes in -1..1; differentiable inside that range."""
        mean, scale = self._at(values)
        return (mean + scale * values).clamp(-1, 1)

    def measure_residuals(self, residuals: Iterable[Tensor]) -> None:
        """Take `residual_std` from what is left [.., C, H, W'] between values and their start."""
        count, squares, channels = 0, torch.zeros(()), len(self.residual_std)
        for residual in residuals:
            means = residual.double().square().mean(dim=(-1, -2))
            squares = squares + means.reshape(-1, channels).mean(dim=0)
            count += 1
        with torch.no_grad():
            self.residual_std.copy_((squares / count).sqrt().clamp(min=SMALLEST_STD * self.spread))

    def residual(self, values: Tensor, start: Tensor) -> Tensor:
        """Return what a start [.., C, H, W'] lacks of the values, scaled to `spread`."""
        return (values - start) / self._residual_scale(values)

    def completed(self, residual: Tensor, start: Tensor) -> Tensor:
        """A start [.., C, H, W'] and a scaled residual → values."""
        return start + residual * self._residual_scale(residual)

    def _residual_scale(self, like: Tensor) -> Tensor:
        return (self.residual_std.to(like) / self.spread)[:, None, None]
