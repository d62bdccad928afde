"""The U-Net that the base model and the upsampler share.

Letters: B batch, C channels, H plane size, K tokens, D token width, E embedding width.
Level 0 is the full resolution; each further level halves it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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


@dataclass(frozen=True, kw_only=True)
class UNetShape:
    """The structure of a U-Net.

    Attributes:
        width: channels of level 0.
        multipliers: channels of each level, in widths.
        blocks: residual blocks of each level on the way down; one more on the way up.
        token_width: D.
        plane_aware_levels: levels whose convolutions are 3D-aware; the first and last convolution
            belong to level 0.
        plane_convs: how they are.
        attention_levels: levels whose blocks attend to tokens.
        self_attention: texels attend to each other as well, and once more between the two middle
            blocks where the last level has attention.
        resample: change resolution by `resnet` (residual blocks) or `conv` (one convolution).
        head_channels: width of an attention head.
        dropout: in residual blocks.
        positions: attention knows plane and place of a texel.
    """

    width: int
    multipliers: Sequence[int]
    blocks: Sequence[int]
    token_width: int
    plane_aware_levels: Sequence[int]
    plane_convs: PlaneConvs
    attention_levels: Sequence[int]
    self_attention: bool
    resample: Literal["resnet", "conv"]
    head_channels: int
    dropout: float
    positions: bool

    def __post_init__(self) -> None:
        if len(self.blocks) != len(self.multipliers):
            raise ValueError(
                f"blocks {list(self.blocks)} and multipliers {list(self.multipliers)} need one "
                "entry for each level"
            )

    @property
    def levels(self) -> int:
        return len(self.multipliers)

    @property
    def embedding_width(self) -> int:
        """E."""
        return 4 * self.width

    def channels(self, level: int) -> int:
        """C of a level."""
        return self.width * self.multipliers[level]

    def aware(self, level: int) -> PlaneConvs | None:
        """How the convolutions of a level are 3D-aware, if they are."""
        return self.plane_convs if level in self.plane_aware_levels else None

    def block(self, level: int, channels: int) -> UNetBlock:
        """A block of a level that takes ``channels``."""
        width, attends = self.channels(level), level in self.attention_levels
        resnet = self.resnet(channels, width, aware=self.aware(level))
        return UNetBlock(resnet, self.attention(width) if attends else None)

    def resnet(self, channels: int, out: int, **how: Any) -> ResBlock:
        """A residual block."""
        return ResBlock(channels, out, self.embedding_width, dropout=self.dropout, **how)

    def attention(self, channels: int) -> TexelAttention:
        """Attention to tokens, and to texels where these attend to each other."""
        return TexelAttention(
            channels, self.token_width, self.head_channels, self.self_attention, self.positions
        )

    def change(self, level: int, channels: int, direction: str) -> nn.Module:
        """What leads up or down to a level."""
        if self.resample == "conv":
            return Resample(channels, direction)
        # As released, blocks that change the resolution are plain.
        aware = self.aware(level) if self.plane_convs == "shared" else None
        return self.resnet(channels, channels, aware=aware, resample=direction)


class UNet(nn.Module):
    """Encoder, middle and decoder with a skip from every encoder block (arXiv 2105.05233).

    Args:
        in_channels, out_channels: of the roll-out.
        shape: what lies between.
    """

    gradient_checkpointing = False
    # Set by diffusers' enable_gradient_checkpointing.
    _gradient_checkpointing_func: Callable[..., Tensor]

    def __init__(self, in_channels: int, out_channels: int, shape: UNetShape) -> None:
        super().__init__()
        last = shape.levels - 1
        channels = shape.channels(0)
        self.input = conv3x3(in_channels, channels, shape.aware(0))
        skips = [channels]
        self.down = nn.ModuleList()
        self.shrink = nn.ModuleList()
        for level in range(shape.levels):
            stage = nn.ModuleList()
            for _ in range(shape.blocks[level]):
                stage.append(shape.block(level, channels))
                channels = shape.channels(level)
                skips.append(channels)
            self.down.append(stage)
            if level < last:
                # The convolutions of this block work at the lower resolution.
                self.shrink.append(shape.change(level + 1, channels, "down"))
                skips.append(channels)

        attends = shape.self_attention and shape.attention_levels[-1] == last
        self.middle1 = shape.resnet(channels, channels, aware=shape.aware(last))
        self.middle_attention = shape.attention(channels) if attends else None
        self.middle2 = shape.resnet(channels, channels, aware=shape.aware(last))

        self.up = nn.ModuleList()
        self.grow = nn.ModuleList()
        for level in reversed(range(shape.levels)):
            stage = nn.ModuleList()
            for _ in range(shape.blocks[level] + 1):
                stage.append(shape.block(level, channels + skips.pop()))
                channels = shape.channels(level)
            self.up.append(stage)
            if level:
                self.grow.append(shape.change(level - 1, channels, "up"))

        self.output_norm = GroupNorm(channels)
        self.output = zero_init(conv3x3(channels, out_channels, shape.aware(0)))

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
