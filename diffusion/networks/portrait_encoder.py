"""The entrance of a portrait's features into the models.

Letters: B batch, S side of a feature map, K tokens, D token width, E embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.networks.attention import head_count
from diffusion.networks.blocks import GroupNorm

if TYPE_CHECKING:
    from diffusion.conditioning.features import PortraitFeatures


def grid_positions(side: int, width: int, device: torch.device) -> Tensor:
    """Sines and cosines of a grid's rows and columns, [side², width] float32, row major.

    Patch tokens come from a convolution, which knows what a patch shows but not where it lies.
    """
    quarter = math.ceil(width / 4)
    frequency = torch.exp(-math.log(100.0) * torch.arange(quarter, device=device) / max(1, quarter))
    angle = torch.arange(side, device=device)[:, None] * frequency * (math.pi / 2)
    wave = torch.cat((angle.sin(), angle.cos()), dim=1)  # [side, 2 * quarter]
    rows = wave[:, None].expand(side, side, -1)
    columns = wave[None].expand(side, side, -1)
    return torch.cat((rows, columns), dim=2).reshape(side * side, -1)[:, :width]


class PatchTokens(nn.Module):
    """One feature map → tokens: GroupNorm, a convolution of non-overlapping patches, positions.

    A sample whose portrait is dropped gets one learned token in place of each of its own.
    """

    def __init__(self, channels: int, side: int, patch: int, width: int) -> None:
        super().__init__()
        self.side = side // patch
        self.norm = GroupNorm(channels)
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.null = nn.Parameter(torch.zeros(width))

    def forward(self, level: Tensor | None, drop: Tensor) -> Tensor:
        """[B, C, S, S] (None when all are dropped) and drop [B] bool → [B, K, D]."""
        null = self.null.expand(drop.shape[0], self.side**2, -1)
        if level is None:
            return null
        tokens = self.patches(self.norm(level)).flatten(2).transpose(1, 2)
        tokens = tokens + grid_positions(self.side, tokens.shape[2], tokens.device).to(tokens.dtype)
        return torch.where(drop[:, None, None], null.to(tokens.dtype), tokens)


class PooledLatent(nn.Module):
    """The VAE latent → one vector: patch convolution, then attention from the patches' mean.

    The pooling is CLIP's (arXiv 2103.00020): the mean is a token of its own and asks all others.
    """

    def __init__(
        self, channels: int, side: int, patch: int, width: int, heads: int, out_width: int
    ) -> None:
        super().__init__()
        count = (side // patch) ** 2
        self.heads = head_count(width, max(1, width // heads))
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.positions = nn.Parameter(torch.randn(count + 1, width) / math.sqrt(width))
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, out_width)
        # As PyTorch makes it, pooled latents differ by a fifth of what timesteps do, and the models
        # take the portrait for a constant at first.
        nn.init.normal_(self.output.weight, std=4 / math.sqrt(width))
        self.null = nn.Parameter(torch.zeros(out_width))

    def forward(self, latent: Tensor | None, drop: Tensor) -> Tensor:
        """[B, C, S, S] (None when all are dropped) and drop [B] bool → [B, E]."""
        null = self.null.expand(drop.shape[0], -1)
        if latent is None:
            return null
        tokens = self.patches(latent).flatten(2).transpose(1, 2)
        tokens = torch.cat((tokens.mean(dim=1, keepdim=True), tokens), dim=1)
        tokens = tokens + self.positions.to(tokens.dtype)
        b, k, width = tokens.shape
        query = self.query(tokens[:, :1]).reshape(b, 1, self.heads, -1).transpose(1, 2)
        key, value = (
            self.key_value(tokens).reshape(b, k, 2, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        )
        pooled = F.scaled_dot_product_attention(query, key, value)
        pooled = self.output(pooled.transpose(1, 2).reshape(b, width))
        return torch.where(drop[:, None], null.to(pooled.dtype), pooled)


class PortraitConditioning(nn.Module):
    """All of a portrait's ways into a model: a vector for the embedding, tokens for attention.

    With `multi_scale` off the tokens are those of the coarsest map alone, for all attention.
    """

    def __init__(
        self,
        *,
        latent_channels: int,
        latent_size: int,
        latent_patch: int,
        latent_width: int,
        feature_channels: Sequence[int],
        feature_sizes: Sequence[int],
        feature_patches: Sequence[int],
        token_width: int,
        embedding_width: int,
        multi_scale: bool = True,
    ) -> None:
        super().__init__()
        if not len(feature_channels) == len(feature_sizes) == len(feature_patches) >= 1:
            raise ValueError(
                "feature_channels, feature_sizes and feature_patches need one entry for each "
                f"feature map, got {list(feature_channels)}, {list(feature_sizes)} and "
                f"{list(feature_patches)}"
            )
        maps = [("the latent", latent_size, latent_patch)]
        maps += [
            (f"feature map {i}", size, patch)
            for i, (size, patch) in enumerate(zip(feature_sizes, feature_patches, strict=True))
        ]
        for name, size, patch in maps:
            if patch < 1 or size % patch:
                raise ValueError(
                    f"{name} is {size} wide, which its patch size {patch} does not divide"
                )
        self.expected = [(latent_channels, latent_size)]
        self.expected += list(zip(feature_channels, feature_sizes, strict=True))
        self.pooled = PooledLatent(
            latent_channels, latent_size, latent_patch, latent_width, 8, embedding_width
        )
        shapes = list(zip(feature_channels, feature_sizes, feature_patches, strict=True))
        self.first = 0 if multi_scale else len(shapes) - 1
        self.levels = nn.ModuleList(
            PatchTokens(channels, size, patch, token_width)
            for channels, size, patch in shapes[self.first :]
        )

    def check(self, features: PortraitFeatures) -> None:
        """Refuses features of another VAE or image size.

        Raises:
            ValueError: says what the model was made for and what it got.
        """
        maps = (features.latent, *features.levels)
        found = [(m.shape[1], m.shape[-1]) for m in maps]
        square = all(m.ndim == 4 and m.shape[-1] == m.shape[-2] for m in maps)
        if not square or found != self.expected:
            raise ValueError(
                "these portrait features do not fit the model: channels x size of latent and "
                f"levels are {_sizes(found)}, the model was made for {_sizes(self.expected)}; "
                "encode the portraits with the VAE and image size the model was trained with"
            )

    def forward(self, features: PortraitFeatures | None, drop: Tensor) -> tuple[Tensor, list]:
        """Features of B portraits (None: all dropped) and drop [B] bool.

        Returns:
            Vector [B, E], and for each feature map, finest first, tokens [B, K, D].
        """
        maps: Sequence[Tensor | None] = [None] * len(self.levels)
        if features is not None:
            self.check(features)
            maps = features.levels[self.first :]
        tokens = [level(values, drop) for level, values in zip(self.levels, maps, strict=True)]
        latent = None if features is None else features.latent
        # With a single scale, every level reads the same tokens.
        return self.pooled(latent, drop), [tokens[0]] * self.first + tokens


def _sizes(shapes: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{channels}x{size}" for channels, size in shapes)
