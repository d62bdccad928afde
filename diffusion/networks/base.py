"""Base model: denoises low-resolution triplanes (128² in the paper) given a portrait.

Letters: B batch, C channels of a plane, H plane size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from diffusion.networks.inputs import (
    attention_levels,
    batched_timestep,
    check_attention,
    check_rollout,
    drop_mask,
    tokens_by_level,
)
from diffusion.networks.portrait_encoder import PortraitConditioning
from diffusion.networks.unet import TimestepEmbedding, UNet

if TYPE_CHECKING:
    from diffusion.conditioning.features import PortraitFeatures


class TriplaneUNet(ModelMixin, ConfigMixin):
    """U-Net over rolled-out planes (RodinHD, arXiv 2407.06938; U-Net as in arXiv 2105.05233).

    The defaults are the paper's model. The portrait enters twice: its pooled latent is added to the
    timestep's embedding; tokens of its feature maps join the keys and values of the attention, the
    finest map at the finest attention resolution.

    361.8M parameters (the paper: 366.8M). The paper's model keeps 6.9 GB of activations for each
    sample in float32, 0.9 GB with gradient checkpointing; a forward pass is 1.5 TFLOP.

    Args:
        plane_channels: C.
        plane_size: H.
        width: channels at full resolution.
        multipliers: channels of each level, in widths.
        blocks: residual blocks of each level (one more on the way up).
        attention_sizes: plane sizes with attention; as many as there are feature maps, or fewer
            (then the coarsest reads the maps left over).
        plane_aware_levels: levels with 3D-aware convolutions, 0 the full resolution.
        head_channels: width of an attention head.
        dropout: in residual blocks.
        learned_variance: the output has C more channels for the variance (learned range).
        mean_guide: the mean triplane comes along as C more input channels. A model of differences
            from it sees nothing but noise at first; the guide tells it which texel is what.
        latent_channels, latent_size: of the VAE's latent.
        latent_patch: side of the latent's patches; it divides latent_size.
        latent_width: width of the latent's pooling.
        feature_channels, feature_sizes: of the encoder's maps, finest first.
        feature_patches: side of a token's patch in each map.
        token_width: width of the portrait tokens.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        plane_channels: int = 32,
        plane_size: int = 128,
        width: int = 192,
        multipliers: tuple[int, ...] = (1, 1, 2, 3, 4),
        blocks: int = 3,
        attention_sizes: tuple[int, ...] = (32, 16, 8),
        plane_aware_levels: tuple[int, ...] = (0,),
        head_channels: int = 64,
        dropout: float = 0.0,
        learned_variance: bool = True,
        mean_guide: bool = False,
        latent_channels: int = 4,
        latent_size: int = 32,
        latent_patch: int = 16,
        latent_width: int = 64,
        feature_channels: tuple[int, ...] = (128, 256, 512),
        feature_sizes: tuple[int, ...] = (256, 128, 64),
        feature_patches: tuple[int, ...] = (16, 8, 4),
        token_width: int = 512,
    ) -> None:
        super().__init__()
        embedding_width = 4 * width
        self.attention_levels = attention_levels(plane_size, attention_sizes, len(multipliers))
        check_attention(self.attention_levels, len(feature_channels))
        self.plane_channels = plane_channels
        self.plane_size = plane_size
        self.mean_guide = mean_guide
        self.time = TimestepEmbedding(width, embedding_width)
        self.portrait = PortraitConditioning(
            latent_channels=latent_channels,
            latent_size=latent_size,
            latent_patch=latent_patch,
            latent_width=latent_width,
            feature_channels=feature_channels,
            feature_sizes=feature_sizes,
            feature_patches=feature_patches,
            token_width=token_width,
            embedding_width=embedding_width,
        )
        self.unet = UNet(
            in_channels=plane_channels * (2 if mean_guide else 1),
            out_channels=plane_channels * (2 if learned_variance else 1),
            width=width,
            multipliers=multipliers,
            blocks=[blocks] * len(multipliers),
            embedding_width=embedding_width,
            token_width=token_width,
            plane_aware_levels=plane_aware_levels,
            attention_levels=self.attention_levels,
            self_attention=True,
            middle_attention=self.attention_levels[-1] == len(multipliers) - 1,
            resample="resnet",
            head_channels=head_channels,
            dropout=dropout,
        )

    def forward(
        self,
        x: Tensor,
        timestep: Tensor | int,
        features: PortraitFeatures | None = None,
        drop: Tensor | None = None,
        guide: Tensor | None = None,
    ) -> Tensor:
        """Predicts noise, x₀ or v, as the model was trained to.

        Args:
            x: noisy planes [B, C, H, 3·H].
            timestep: index into the schedule, one for all or [B].
            features: of B portraits; None for no portrait at all.
            drop: [B] bool, samples to denoise without their portrait.
            guide: the mean triplane [1, C, H, 3·H], for a model that takes one.

        Returns:
            [B, C, H, 3·H], or [B, 2·C, H, 3·H] with learned variance.

        Raises:
            ValueError: planes or features the model was not made for.
        """
        check_rollout(x, self.plane_channels, self.plane_size, "x")
        steps = batched_timestep(timestep, x.shape[0], x.device)
        mask = drop_mask(drop, features is None, x.shape[0], x.device)
        pooled, tokens = self.portrait(features, mask)
        levels = tokens_by_level(tokens, self.attention_levels, len(self.unet.down))
        if (guide is not None) != self.mean_guide:
            raise ValueError(
                "this model takes the mean triplane as its guide, and got none"
                if self.mean_guide
                else "this model takes no guide: it was not trained on differences from a mean"
            )
        if guide is not None:
            check_rollout(guide, self.plane_channels, self.plane_size, "guide")
            x = torch.cat((x, guide.to(x).expand(len(x), -1, -1, -1)), dim=1)
        return self.unet(x, self.time(steps) + pooled, levels)
