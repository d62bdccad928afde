"""The triplane to expect of a portrait, as a linear function of the portrait's features.

Letters: B batch, D entries of a portrait's vector, K components, C channels, H plane size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from diffusion.conditioning.features import PortraitFeatures

SEEN_SIZE = 8
"""Side to which each feature map is shrunk."""


def portrait_vectors(features: PortraitFeatures) -> Tensor:
    """Return one vector for each portrait, [B, D]: latent and all maps, shrunk to 8²."""
    maps = (features.latent, *features.levels)
    return torch.cat([F.adaptive_avg_pool2d(m, SEEN_SIZE).flatten(1) for m in maps], dim=1)


class LinearExpectation(ModelMixin, ConfigMixin):
    """Portrait features → expected values of a triplane: a mean and K weighted components.

    Args:
        plane_channels: C.
        plane_size: H.
        inputs: D.
        components: K.

    Attributes:
        centre, scale: [D], mean and spread of the entries among the portraits learnt from.
        weight: [D, K].
        mean: [C, H, 3·H], of the values.
        basis: [K, C, H, 3·H], orthonormal.
    """

    @register_to_config
    def __init__(
        self, plane_channels: int = 32, plane_size: int = 128, inputs: int = 64, components: int = 1
    ) -> None:
        super().__init__()

        def fixed(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(shape), requires_grad=False)

        rolled = (plane_channels, plane_size, 3 * plane_size)
        self.centre, self.scale = fixed(inputs), fixed(inputs)
        self.weight, self.mean = fixed(inputs, components), fixed(*rolled)
        self.basis = fixed(components, *rolled)

    def seen(self, features: PortraitFeatures) -> Tensor:
        """Return what the weights work on: vectors [B, D] of unit spread.

        Raises:
            ValueError: features of another VAE than those learnt from.
        """
        vectors = portrait_vectors(features)
        if vectors.shape[1] != len(self.centre):
            raise ValueError(
                f"these portrait features do not fit the model: they have {vectors.shape[1]} "
                f"entries, the linear start was learnt from {len(self.centre)}"
            )
        return (vectors - self.centre) / self.scale

    def values(self, coefficients: Tensor) -> Tensor:
        """Coefficients [B, K] → values [B, C, H, 3·H]."""
        return self.mean + torch.einsum("bk,kchw->bchw", coefficients, self.basis)

    def forward(self, features: PortraitFeatures) -> Tensor:
        """Features of B portraits → values [B, C, H, 3·H] float32."""
        return self.values(self.seen(features) @ self.weight)
