"""Base model: denoises low-resolution triplanes (128² in the paper) given a portrait.

Letters: B batch, C channels of a plane, H plane size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from diffusion.networks.blocks import PlaneConvs
from diffusion.networks.denoiser import TriplaneDenoiser
from diffusion.networks.inputs import check_rollout
from diffusion.networks.pixel_aligned import WHOLE_BOX

if TYPE_CHECKING:
    from diffusion.conditioning.features import PortraitFeatures


class TriplaneUNet(TriplaneDenoiser, ModelMixin, ConfigMixin):
    """U-Net over rolled-out planes (RodinHD, arXiv 2407.06938; U-Net as in arXiv 2105.05233).

    The defaults are the paper's model. The portrait enters twice: its pooled latent is added to the
    timestep's embedding; tokens of its feature maps join the keys and values of the attention, the
    finest map at the finest attention resolution.

    366.83M parameters with `plane_convs="released"`, as published; 361.85M with one weight shared
    by all convolutions of the finest level. The paper's model keeps 5.1 GB of activations for each
    sample in float32, 3.3 GB in mixed precision, 0.8 GB with gradient checkpointing too; a forward
    pass is 1.36 TFLOP (counted by `diffusion.training.memory.step_memory`).

    Args:
        plane_channels: C.
        plane_size: H.
        width: channels at full resolution.
        multipliers: channels of each level, in widths.
        blocks: residual blocks of each level (one more on the way up).
        attention_sizes: plane sizes with attention; as many as there are feature maps, or fewer
            (then the coarsest reads the maps left over).
        plane_aware_levels: levels with 3D-aware convolutions, 0 the full resolution.
        plane_convs: `shared`: all of their convolutions are, with one weight for the three planes;
            `released`: the second of each block, with a weight for each plane.
        head_channels: width of an attention head.
        dropout: in residual blocks.
        learned_variance: the output has C more channels for the variance (learned range).
        guided: clean planes come along as C more input channels: those the model starts from, or
            the mean triplane. A model of differences sees nothing but noise at first; the guide
            tells it which texel is what.
        positions: input and attention know plane and place of a texel.
        pixel_aligned: channels of portrait features laid where the portrait shows them; 0 for none.
        portrait_window: what a portrait shows of the plane z = 0: left, bottom, right, top.
        latent_channels, latent_size: of the VAE's latent.
        latent_patch: side of the latent's patches; it divides latent_size.
        latent_width: width of the latent's pooling.
        feature_channels, feature_sizes: of the encoder's maps, finest first.
        feature_patches: side of a token's patch in each map.
        token_width: width of the portrait tokens.
        multi_scale: tokens of all feature maps; of the coarsest alone without.
    """

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
        plane_convs: PlaneConvs = "shared",
        head_channels: int = 64,
        dropout: float = 0.0,
        learned_variance: bool = True,
        guided: bool = False,
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
        self._build(
            guide_channels=plane_channels if guided else 0,
            out_channels=plane_channels * (2 if learned_variance else 1),
            blocks=[blocks] * len(multipliers),
            plane_aware_levels=plane_aware_levels,
            self_attention=True,
            resample="resnet",
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
            guide: clean planes [1 or B, C, H, 3·H], for a model that takes them.

        Returns:
            [B, C, H, 3·H], or [B, 2·C, H, 3·H] with learned variance.

        Raises:
            ValueError: planes or features the model was not made for.
        """
        if (guide is not None) != self.config["guided"]:
            raise ValueError(
                "this model takes clean planes as its guide, and got none"
                if guide is None
                else "this model takes no guide: it was not trained with one"
            )
        if guide is not None:
            check_rollout(guide, self.plane_channels, self.plane_size, "guide")
        return self._denoise(x, timestep, features, drop, guide)
