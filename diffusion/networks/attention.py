"""Attention of the texels of a roll-out to each other and to portrait tokens.

Letters: B batch, C channels, H plane size, K tokens, D token width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.networks.blocks import GroupNorm, zero_init
from diffusion.networks.positions import POSITION_FEATURES, texel_positions


def head_count(channels: int, head_channels: int) -> int:
    """Number of heads of about ``head_channels`` each that divides ``channels``."""
    wanted = max(1, channels // head_channels)
    return next(n for n in range(wanted, 0, -1) if channels % n == 0)


class TexelAttention(nn.Module):
    """Multi-head attention from texels to portrait tokens, and to the texels themselves if asked.

    With self-attention, the keys and values of the tokens and of the texels are concatenated, so
    that one softmax weighs both (GLIDE, arXiv 2112.10741).

    Args:
        channels: C.
        token_width: D.
        head_channels: width of a head (about: see `head_count`).
        self_attention: texels attend to texels too.
        positions: texels know their plane and place.
    """

    def __init__(
        self,
        channels: int,
        token_width: int,
        head_channels: int,
        self_attention: bool,
        positions: bool = False,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.heads = head_count(channels, head_channels)
        self.self_attention = self_attention
        self.norm = GroupNorm(channels)
        self.texels = nn.Linear(channels, channels * (3 if self_attention else 1))
        self.tokens = nn.Linear(token_width, 2 * channels)
        self.output = zero_init(nn.Linear(channels, channels))
        # From zero: attention starts as that of texels which don't know where they are.
        self.positions = (
            zero_init(nn.Linear(POSITION_FEATURES, channels, bias=False)) if positions else None
        )

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Maps [B, C, H, 3·H] and tokens [B, K, D] → [B, C, H, 3·H]."""
        b, c, h, w = x.shape
        normed = self.norm(x).flatten(2).transpose(1, 2)
        if self.positions is not None:
            places = texel_positions(h, x.device).to(x.dtype).flatten(2).transpose(1, 2)
            normed = normed + self.positions(places)
        query, *own = self._heads(self.texels(normed))
        key, value = self._heads(self.tokens(tokens))
        if own:
            key = torch.cat((key, own[0]), dim=2)
            value = torch.cat((value, own[1]), dim=2)
        mixed = F.scaled_dot_product_attention(query, key, value)
        mixed = self.output(mixed.transpose(1, 2).flatten(2))
        return x + mixed.transpose(1, 2).reshape(b, c, h, w)

    def _heads(self, x: Tensor) -> list[Tensor]:
        """[B, L, n·C] → n tensors [B, heads, L, C / heads]."""
        b, length, _ = x.shape
        parts = x.reshape(b, length, -1, self.heads, self.channels // self.heads)
        return list(parts.permute(2, 0, 3, 1, 4).unbind(0))
