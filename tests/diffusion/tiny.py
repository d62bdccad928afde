"""Models so small that a test builds or trains them in a second, and portraits for them."""

import torch

from diffusion.conditioning.features import PortraitFeatures
from diffusion.training.train_base import BaseModelConfig

TINY_BASE = {
    "width": 8,
    "multipliers": (1, 2),
    "blocks": 1,
    "attention_sizes": (4,),
    "head_channels": 8,
    "latent_patch": 4,
    "latent_width": 8,
    "token_width": 8,
}
"""Of a base model over the features that conftest.py encodes."""

CONDITION = {
    "latent_size": 8,
    "latent_patch": 4,
    "latent_width": 16,
    "feature_channels": (6, 8, 12),
    "feature_sizes": (32, 16, 8),
    "feature_patches": (8, 4, 2),
}
"""How a network takes :func:`portraits`."""


def tiny_base(**changes) -> BaseModelConfig:
    """The settings of ``TINY_BASE``, but for some."""
    return BaseModelConfig(**TINY_BASE | changes)


def portraits(batch: int, seed: int = 0) -> PortraitFeatures:
    """Random features of some portraits."""
    random = torch.Generator().manual_seed(seed)

    def draw(channels, size):
        return torch.randn(batch, channels, size, size, generator=random)

    return PortraitFeatures(draw(4, 8), (draw(6, 32), draw(8, 16), draw(12, 8)))
