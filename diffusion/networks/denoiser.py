"""The common frame of base model and upsampler: portrait, time and texels led into one U-Net.

Letters: B batch, C channels of a plane, H plane size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from diffusion.networks.blocks import PlaneConvs
from diffusion.networks.inputs import (
    attention_levels,
    batched_timestep,
    check_attention,
    check_rollout,
    drop_mask,
    tokens_by_level,
)
from diffusion.networks.pixel_aligned import PixelAligned
from diffusion.networks.portrait_encoder import PortraitConditioning
from diffusion.networks.positions import POSITION_FEATURES, texel_positions
from diffusion.networks.unet import TimestepEmbedding, UNet

if TYPE_CHECKING:
    from diffusion.conditioning.features import PortraitFeatures


class TriplaneDenoiser(nn.Module):
    """A U-Net over rolled-out planes that reads a portrait; what a diffusers model is made of."""

    _supports_gradient_checkpointing = True
    plane_channels: int
    plane_size: int

    def _build(
        self,
        *,
        plane_channels: int,
        plane_size: int,
        guide_channels: int,
        out_channels: int,
        width: int,
        multipliers: Sequence[int],
        blocks: Sequence[int],
        attention_sizes: Sequence[int],
        plane_aware_levels: Sequence[int],
        plane_convs: PlaneConvs,
        self_attention: bool,
        middle_attention: bool,
        resample: Literal["resnet", "conv"],
        head_channels: int,
        dropout: float,
        positions: bool,
        pixel_aligned: int,
        portrait_window: Sequence[float],
        token_width: int,
        feature_channels: Sequence[int],
        feature_sizes: Sequence[int],
        **portrait: Any,
    ) -> None:
        """Make the parts.

        Args:
            guide_channels: clean planes beside the noisy ones, in channels.
            out_channels: of the output.
            portrait: of the latent and the feature patches, see `PortraitConditioning`.
        """
        self.plane_channels, self.plane_size = plane_channels, plane_size
        self.attention_levels = attention_levels(plane_size, attention_sizes, len(multipliers))
        check_attention(self.attention_levels, len(feature_channels))
        self.positions = positions
        self.time = TimestepEmbedding(width, 4 * width)
        self.portrait = PortraitConditioning(
            feature_channels=feature_channels,
            feature_sizes=feature_sizes,
            token_width=token_width,
            embedding_width=4 * width,
            **portrait,
        )
        self.aligned = (
            PixelAligned(feature_channels, feature_sizes, pixel_aligned, portrait_window)
            if pixel_aligned
            else None
        )
        extra = (POSITION_FEATURES if positions else 0) + pixel_aligned
        self.unet = UNet(
            in_channels=plane_channels + guide_channels + extra,
            out_channels=out_channels,
            width=width,
            multipliers=multipliers,
            blocks=blocks,
            embedding_width=4 * width,
            token_width=token_width,
            plane_aware_levels=plane_aware_levels,
            plane_convs=plane_convs,
            attention_levels=self.attention_levels,
            self_attention=self_attention,
            middle_attention=middle_attention and self.attention_levels[-1] == len(multipliers) - 1,
            resample=resample,
            head_channels=head_channels,
            dropout=dropout,
            positions=positions,
        )

    def _denoise(
        self,
        x: Tensor,
        timestep: Tensor | int,
        features: PortraitFeatures | None,
        drop: Tensor | None,
        guide: Tensor | None,
    ) -> Tensor:
        """The U-Net's output [B, O, H, 3·H]; `guide` [1 or B, G, H, 3·H] lies beside x."""
        check_rollout(x, self.plane_channels, self.plane_size, "x")
        batch, size = len(x), self.plane_size
        steps = batched_timestep(timestep, batch, x.device)
        mask = drop_mask(drop, features is None, batch, x.device)
        pooled, tokens = self.portrait(features, mask)
        levels = tokens_by_level(tokens, self.attention_levels, len(self.unet.down))
        inputs = [x]
        if guide is not None:
            inputs.append(guide.to(x).expand(batch, -1, -1, -1))
        if self.positions:
            inputs.append(texel_positions(size, x.device).to(x).expand(batch, -1, -1, -1))
        if self.aligned is not None:
            inputs.append(self.aligned(features, mask, size).to(x))
        return self.unet(torch.cat(inputs, dim=1), self.time(steps) + pooled, levels)
