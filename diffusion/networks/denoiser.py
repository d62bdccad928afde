"""The common frame of base model and upsampler: portrait, time and texels led into one U-Net.

Letters: B batch, C channels of a plane, H plane size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

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
from diffusion.networks.unet import TimestepEmbedding, UNet, UNetShape

if TYPE_CHECKING:
    from diffusion.conditioning.features import PortraitFeatures


PORTRAIT = (
    "latent_channels",
    "latent_size",
    "latent_patch",
    "latent_width",
    "feature_channels",
    "feature_sizes",
    "feature_patches",
    "token_width",
    "multi_scale",
)
"""Settings of a model that are its portrait's, see `PortraitConditioning`."""
UNET = (
    "width",
    "multipliers",
    "token_width",
    "plane_convs",
    "head_channels",
    "dropout",
    "positions",
)
"""Settings of a model that are its U-Net's, see `UNetShape`."""


class TriplaneDenoiser(nn.Module):
    """A U-Net over rolled-out planes that reads a portrait; what a diffusers model is made of."""

    _supports_gradient_checkpointing = True
    config: Any
    plane_channels: int
    plane_size: int

    def _build(
        self,
        *,
        guide_channels: int,
        out_channels: int,
        blocks: Sequence[int],
        plane_aware_levels: Sequence[int],
        self_attention: bool,
        resample: Literal["resnet", "conv"],
    ) -> None:
        """Make the parts, as the model's registered config says and the arguments add.

        Args:
            guide_channels: clean planes beside the noisy ones, in channels.
            out_channels: of the output.
            blocks, plane_aware_levels, self_attention, resample: as in `UNetShape`.
        """
        config = self.config
        width, levels = config.width, len(config.multipliers)
        self.plane_channels, self.plane_size = config.plane_channels, config.plane_size
        self.attention_levels = attention_levels(self.plane_size, config.attention_sizes, levels)
        check_attention(self.attention_levels, len(config.feature_channels))
        self.positions = config.positions
        self.time = TimestepEmbedding(width, 4 * width)
        self.portrait = PortraitConditioning(
            embedding_width=4 * width, **{key: config[key] for key in PORTRAIT}
        )
        self.aligned = None
        if config.pixel_aligned:
            self.aligned = PixelAligned(
                config.feature_channels,
                config.feature_sizes,
                config.pixel_aligned,
                config.portrait_window,
            )
        beside = guide_channels + config.pixel_aligned
        beside += POSITION_FEATURES if config.positions else 0
        shape = UNetShape(
            blocks=blocks,
            plane_aware_levels=plane_aware_levels,
            attention_levels=self.attention_levels,
            self_attention=self_attention,
            resample=resample,
            **{key: config[key] for key in UNET},
        )
        self.unet = UNet(self.plane_channels + beside, out_channels, shape)

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
