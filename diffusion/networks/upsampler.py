"""Upsampler: high-resolution planes (512² in the paper) from low-resolution ones and a portrait.

Letters: B batch, C channels of a plane, H plane size, h size of the low-resolution planes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor
from torch.nn import functional as F

from diffusion.networks.blocks import PlaneConvs
from diffusion.networks.denoiser import TriplaneDenoiser
from diffusion.networks.inputs import check_rollout
from diffusion.networks.pixel_aligned import WHOLE_BOX
from renderer.triplane import rollout, unroll

if TYPE_CHECKING:
    from diffusion.conditioning.features import PortraitFeatures


class TriplaneUpsampler(TriplaneDenoiser, ModelMixin, ConfigMixin):
    """U-Net that predicts clean high-resolution planes (RodinHD, arXiv 2407.06938).

    3D-aware convolutions at all levels, no self-attention; at the lower resolutions, texels attend
    to tokens of the portrait's feature maps. The low-resolution planes are resized bicubically and
    concatenated to the input. The defaults are the paper's model with 128 channels.

    The parameter count is that of the released model, 320.6M (80.4M at width 64), plus the patch
    convolutions of the three feature maps (29.4M), which the release leaves out: it reads tokens of
    the latent alone where the paper speaks of the feature maps.

    At 512² and 128 channels a sample keeps 54 GB of activations in float32, 27 GB in mixed
    precision, 7.6 GB with gradient checkpointing too; a forward pass is 18.6 TFLOP (counted by
    `diffusion.training.memory.step_memory`).

    Args:
        plane_channels: C.
        plane_size: H.
        low_res_size: h.
        width: channels at full resolution.
        multipliers: channels of each level, in widths.
        blocks: residual blocks of each level (one more on the way up).
        attention_sizes: plane sizes with cross-attention; the finest feature map goes to the
            finest of them, the coarsest reads all maps left over.
        head_channels: width of an attention head.
        dropout: in residual blocks.
        residual: the model was trained on what the enlarged small planes lack (scaled, see
            `PlaneNormalization`); as published it makes planes whole.
        plane_convs, positions, pixel_aligned, portrait_window: as in `TriplaneUNet`.
        latent_channels, latent_size, latent_patch, latent_width, feature_channels, feature_sizes,
        feature_patches, token_width, multi_scale: as in `TriplaneUNet`.
    """

    @register_to_config
    def __init__(
        self,
        plane_channels: int = 32,
        plane_size: int = 512,
        low_res_size: int = 128,
        width: int = 128,
        multipliers: tuple[int, ...] = (1, 2, 4),
        blocks: tuple[int, ...] = (2, 2, 6),
        attention_sizes: tuple[int, ...] = (256, 128),
        head_channels: int = 64,
        dropout: float = 0.0,
        residual: bool = False,
        plane_convs: PlaneConvs = "shared",
        positions: bool = False,
        pixel_aligned: int = 0,
        portrait_window: tuple[float, ...] = WHOLE_BOX,
        latent_channels: int = 4,
        latent_size: int = 32,
        latent_patch: int = 16,
        latent_width: int = 64,
        feature_channels: tuple[int, ...] = (128, 256, 512),
        feature_sizes: tuple[int, ...] = (256, 128, 64),
        feature_patches: tuple[int, ...] = (16, 8, 4),
        token_width: int = 512,
        multi_scale: bool = True,
    ) -> None:
        super().__init__()
        self.low_res_size = low_res_size
        self._build(
            guide_channels=plane_channels,
            out_channels=plane_channels,
            blocks=blocks,
            plane_aware_levels=range(len(multipliers)),
            self_attention=False,
            resample="conv",
        )

    def forward(
        self,
        x: Tensor,
        timestep: Tensor | int,
        low_res: Tensor,
        features: PortraitFeatures | None = None,
        drop: Tensor | None = None,
    ) -> Tensor:
        """Predict noise, x₀ or v, as the model was trained to.

        Args:
            x: noisy planes [B, C, H, 3·H].
            timestep: index into the schedule, one for all or [B].
            low_res: values of low-resolution planes [B, C, h, 3·h].
            features: of B portraits; None for no portrait at all.
            drop: [B] bool, samples to denoise without their portrait.

        Returns:
            [B, C, H, 3·H].

        Raises:
            ValueError: planes or features the model was not made for.
        """
        check_rollout(low_res, self.plane_channels, self.low_res_size, "low_res")
        guide = upsample_rollout(low_res, self.plane_size)
        return self._denoise(x, timestep, features, drop, guide)


def upsample_rollout(low_res: Tensor, size: int) -> Tensor:
    """Bicubic resize of a roll-out, plane by plane: [B, C, h, 3·h] → [B, C, size, 3·size].

    The outermost texels stay on the box's faces, as everywhere in a triplane.
    """
    planes = unroll(low_res)
    b, p, c, h, w = planes.shape
    flat = F.interpolate(
        planes.reshape(b * p, c, h, w), (size, size), mode="bicubic", align_corners=True
    )
    return rollout(flat.reshape(b, p, c, size, size))
