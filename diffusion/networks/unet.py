"""The U-Net that the base model and the upsampler share.

Letters: B batch, C channels, H plane size, K tokens, D token width, E embedding width.
Level 0 is the full resolution; each further level halves it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.networks.attention import TexelAttention
from diffusion.networks.blocks import GroupNorm, PlaneConvs, Resample, ResBlock, conv3x3, zero_init


class TimestepEmbedding(nn.Module):
    """Timestep → E: sines and cosines of the index itself (no rescaling), then two layers."""

    def __init__(self, width: int, embedding_width: int) -> None:
        super().__init__()
        self.width = width
        self.linear1 = nn.Linear(width, embedding_width)
        self.linear2 = nn.Linear(embedding_width, embedding_width)

    def forward(self, timestep: Tensor) -> Tensor:
        """[B] → [B, E]."""
        waves = get_timestep_embedding(
            timestep, self.width, flip_sin_to_cos=True, downscale_freq_shift=0
        )
        return self.linear2(F.silu(self.linear1(waves.to(self.linear1.weight.dtype))))


class UNetBlock(nn.Module):
    """A residual block and, where the level has it, attention after it."""

    def __init__(self, resnet: ResBlock, attention: TexelAttention | None) -> None:
        super().__init__()
        self.resnet = resnet
        self.attention = attention

    def forward(self, x: Tensor, embedding: Tensor, tokens: Tensor | None) -> Tensor:
        """[B, C, H, 3·H] → [B, O, H, 3·H]."""
        x = self.resnet(x, embedding)
        return x if self.attention is None else self.attention(x, tokens)


class UNet(nn.Module):
    """Encoder, middle and decoder with a skip from every encoder block (arXiv 2105.05233).

    Args:
        in_channels, out_channels: of the roll-out.
        width: channels of level 0.
        multipliers: channels of each level, in widths.
        blocks: residual blocks of each level on the way down; one more on the way up.
        embedding_width: E.
        token_width: D.
        plane_aware_levels: levels whose convolutions are 3D-aware; the first and last convolution
            belong to level 0.
        plane_convs: how they are.
        attention_levels: levels whose blocks attend to tokens.
        self_attention: texels attend to each other as well.
        middle_attention: attention between the two middle blocks.
        resample: change resolution by `resnet` (residual blocks) or `conv` (one convolution).
        head_channels: width of an attention head.
        dropout: in residual blocks.
        positions: attention knows plane and place of a texel.
    """

    gradient_checkpointing = False
    # Set by diffusers' enable_gradient_checkpointing.
    _gradient_checkpointing_func: Callable[..., Tensor]

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        width: int,
        multipliers: Sequence[int],
        blocks: Sequence[int],
        embedding_width: int,
        token_width: int,
        plane_aware_levels: Sequence[int],
        plane_convs: PlaneConvs,
        attention_levels: Sequence[int],
        self_attention: bool,
        middle_attention: bool,
        resample: Literal["resnet", "conv"],
        head_channels: int,
        dropout: float,
        positions: bool = False,
    ) -> None:
        super().__init__()
        if len(blocks) != len(multipliers):
            raise ValueError(
                f"blocks {list(blocks)} and multipliers {list(multipliers)} need one entry for "
                "each level"
            )
        levels = len(multipliers)

        def aware(level: int) -> PlaneConvs | None:
            return plane_convs if level in plane_aware_levels else None

        def block(level: int, in_width: int, out_width: int) -> UNetBlock:
            resnet = ResBlock(
                in_width,
                out_width,
                embedding_width,
                aware=aware(level),
                dropout=dropout,
            )
            return UNetBlock(resnet, attention(out_width) if level in attention_levels else None)

        def attention(channels: int) -> TexelAttention:
            return TexelAttention(channels, token_width, head_channels, self_attention, positions)

        def change(level: int, channels: int, direction: str) -> nn.Module:
            if resample == "conv":
                return Resample(channels, direction)
            return ResBlock(
                channels,
                channels,
                embedding_width,
                # As released, blocks that change the resolution are plain.
                aware=aware(level) if plane_convs == "shared" else None,
                resample=direction,
                dropout=dropout,
            )

        channels = width * multipliers[0]
        self.input = conv3x3(in_channels, channels, aware(0))
        skips = [channels]
        self.down = nn.ModuleList()
        self.shrink = nn.ModuleList()
        for level, multiplier in enumerate(multipliers):
            stage = nn.ModuleList()
            for _ in range(blocks[level]):
                stage.append(block(level, channels, width * multiplier))
                channels = width * multiplier
                skips.append(channels)
            self.down.append(stage)
            if level + 1 < levels:
                # The convolutions of this block work at the lower resolution.
                self.shrink.append(change(level + 1, channels, "down"))
                skips.append(channels)

        last = levels - 1
        middle = {"aware": aware(last), "dropout": dropout}
        self.middle1 = ResBlock(channels, channels, embedding_width, **middle)
        self.middle_attention = attention(channels) if middle_attention else None
        self.middle2 = ResBlock(channels, channels, embedding_width, **middle)

        self.up = nn.ModuleList()
        self.grow = nn.ModuleList()
        for level in reversed(range(levels)):
            stage = nn.ModuleList()
            for _ in range(blocks[level] + 1):
                stage.append(block(level, channels + skips.pop(), width * multipliers[level]))
                channels = width * multipliers[level]
            self.up.append(stage)
            if level:
                self.grow.append(change(level - 1, channels, "up"))

        self.output_norm = GroupNorm(channels)
        self.output = zero_init(conv3x3(channels, out_channels, aware(0)))

    def forward(self, x: Tensor, embedding: Tensor, tokens: Sequence[Tensor | None]) -> Tensor:
        """Denoises.

        Args:
            x: [B, C_in, H, 3·H].
            embedding: [B, E], of timestep and portrait.
            tokens: for each level [B, K, D], or None where the level has no attention.

        Returns:
            [B, C_out, H, 3·H].
        """
        embedding = F.silu(embedding)
        x = self.input(x)
        skips = [x]
        for level, stage in enumerate(self.down):
            for block in stage.children():
                x = self._run(block, x, embedding, tokens[level])
                skips.append(x)
            if level < len(self.shrink):
                x = self._run(self.shrink[level], x, embedding)
                skips.append(x)
        x = self._run(self.middle1, x, embedding)
        if self.middle_attention is not None:
            x = self._run(self.middle_attention, x, tokens[-1])
        x = self._run(self.middle2, x, embedding)
        for index, stage in enumerate(self.up):
            level = len(self.up) - 1 - index
            for block in stage.children():
                x = self._run(block, torch.cat((x, skips.pop()), dim=1), embedding, tokens[level])
            if level:
                x = self._run(self.grow[index], x, embedding)
        return self.output(F.silu(self.output_norm(x)))

    def _run(self, block: nn.Module, *inputs: Tensor | None) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(block, *inputs)
        return block(*inputs)
