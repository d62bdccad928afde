"""The mean of a set's triplanes, from which diffusion models may learn the differences.

Letters: B batch, P = 3 planes, C channels, H the models' plane size, h any smaller one.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from renderer.triplane import resize_planes, rollout

SPREADS = 4.0
"""Standard deviations that ±1 stands for; rarer differences are clipped."""


class MeanTriplane(ModelMixin, ConfigMixin):
    """Maps triplanes to scaled differences from their mean and back.

    Triplanes that were fitted from a common start share most of their fine detail, which a model
    of few subjects or steps would have to learn by heart, and which shrunken planes lose. The mean
    keeps it; what is left to learn is smooth and of one spread in every channel.

    Args:
        plane_channels: C.
        plane_size: H.

    Attributes:
        mean: [P, C, H, H] in -1..1.
        scale: [C], the difference that 1 stands for.
    """

    @register_to_config
    def __init__(self, plane_channels: int = 32, plane_size: int = 128) -> None:
        super().__init__()
        shape = (3, plane_channels, plane_size, plane_size)
        self.mean = nn.Parameter(torch.zeros(shape), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(plane_channels), requires_grad=False)

    @classmethod
    def of(cls, triplanes: Iterable[Tensor], size: int) -> MeanTriplane:
        """Measures triplanes [P, C, H', H'], each resized to `size` first.

        Raises:
            ValueError: there are none.
        """
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for planes in triplanes:
            planes = resize_planes(planes[None].float(), size)[0]
            count, total, squares = count + 1, total + planes, squares + planes.square()
        if count == 0:
            raise ValueError("the mean of no triplanes")
        mean = total / count
        variance = (squares / count - mean.square()).mean(dim=(0, 2, 3))
        model = cls(plane_channels=mean.shape[1], plane_size=size)
        with torch.no_grad():
            model.mean.copy_(mean)
            # A channel in which all subjects agree keeps its (tiny) differences finite.
            model.scale.copy_(SPREADS * variance.clamp(min=1e-6).sqrt())
        return model

    def guide(self) -> Tensor:
        """The mean as input of a network: rolled out [1, C, H, 3·H], of unit spread."""
        return rollout(self.mean[None] / self.mean.std().clamp(min=1e-6)).detach()

    def _at(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        mean = resize_planes(self.mean[None], planes.shape[-1])
        return mean.to(planes), self.scale.to(planes)[:, None, None]

    def differences(self, planes: Tensor) -> Tensor:
        """Planes [B, P, C, h, h] in -1..1 → scaled differences in -1..1, same shape."""
        mean, scale = self._at(planes)
        return ((planes - mean) / scale).clamp(-1, 1)

    def planes(self, differences: Tensor) -> Tensor:
        """Scaled differences [B, P, C, h, h] → planes in -1..1; differentiable inside the range."""
        mean, scale = self._at(differences)
        return (mean + scale * differences).clamp(-1, 1)
