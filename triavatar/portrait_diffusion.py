"""Portrait → triplane by diffusion: encoder, base model and upsampler wired together.

Legend: B portraits, P = 3 planes, C channels, h H plane sizes of the base and the upsampler, S side
of a portrait.

::

    portrait ─ PortraitEncoder ─ features ─┬─ BaseTriplanePipeline ─ planes [B, P, C, h, h]
                                           └─ UpsampleTriplanePipeline ─ planes [B, P, C, H, H]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusion.conditioning.features import PortraitEncoder, PortraitFeatures, vae_hash
from diffusion.sampling.model_files import load_pipeline
from diffusion.sampling.pipelines import BaseTriplanePipeline, UpsampleTriplanePipeline
from diffusion.sampling.sample_set import check_steps
from diffusion.sampling.sampler_config import SamplingConfig
from runtime.errors import UserError
from runtime.seeds import seed_of


class PortraitDiffusion:
    """The diffusion models, and what they see of a portrait.

    Attributes:
        encoder: portrait to features.
        base: features to low-resolution planes.
        upsampler: these to planes of full resolution, or None where the base's are.
        decoder_hash: of the decoder that renders the planes.
    """

    def __init__(
        self,
        encoder: PortraitEncoder,
        base: BaseTriplanePipeline,
        upsampler: UpsampleTriplanePipeline | None,
        decoder_hash: str,
    ) -> None:
        """Take the parts; raises UserError when base and upsampler don't fit each other."""
        if upsampler is not None:
            made, taken = base.unet.config["plane_size"], upsampler.unet.config["low_res_size"]
            if made != taken:
                raise UserError(
                    f"the base model makes planes of {made}² but the upsampler takes {taken}²; "
                    "train both with the same sizes."
                )
        self.encoder, self.base, self.upsampler = encoder, base, upsampler
        self.decoder_hash = decoder_hash

    @classmethod
    def from_parts(
        cls, parts: Mapping[str, Path | str], sampling: SamplingConfig, device: torch.device
    ) -> PortraitDiffusion:
        """Load the models and check that they were made for each other.

        Args:
            parts: ``vae``, ``base`` and, if there is one, ``upsampler`` → folder.
            sampling: how the models will be sampled; refused here if they can't be.
            device: where to put them.

        Raises:
            UserError: a part is missing or damaged, or was trained with another decoder or VAE.
        """
        base, trained = load_pipeline(BaseTriplanePipeline, Path(parts["base"]), device)
        check_steps(sampling.base, base)
        upsampler = None
        if "upsampler" in parts:
            folder = Path(parts["upsampler"])
            upsampler, other = load_pipeline(UpsampleTriplanePipeline, folder, device)
            check_steps(sampling.upsampler, upsampler)
            for key, meaning in (("decoder_hash", "decoder"), ("vae_hash", "VAE")):
                if trained[key] != other[key]:
                    raise UserError(
                        f"{parts['base']} and {parts['upsampler']} were trained with different "
                        f"{meaning}s; give two models of one chain."
                    )
        encoder = PortraitEncoder(str(parts["vae"]), int(str(trained["image_size"])), device)
        factor = trained["scaling_factor"] or encoder.scaling_factor
        if vae_hash(encoder.vae) != trained["vae_hash"] or factor != encoder.scaling_factor:
            raise UserError(
                f"the VAE {parts['vae']} is not the one {parts['base']} was trained with."
            )
        return cls(encoder, base, upsampler, str(trained["decoder_hash"]))

    def encode(self, portraits: Sequence[np.ndarray]) -> PortraitFeatures:
        """Features of square portraits, uint8 [H, W, 3|4]; UserError if the models take others."""
        features = self.encoder.encode_portraits(portraits)
        try:
            self.base.unet.portrait.check(features)
            if self.upsampler is not None:
                self.upsampler.unet.portrait.check(features)
        except ValueError as error:
            raise UserError(f"the portrait's features don't fit the models: {error}.") from None
        return features

    @torch.no_grad()
    def __call__(
        self,
        portraits: Sequence[np.ndarray],
        names: Sequence[str],
        seed: int,
        sampling: SamplingConfig,
    ) -> Tensor:
        """Sample one triplane per portrait from the diffusion models.

        Args:
            portraits: B square pictures, uint8 [S, S, 3|4], straight alpha.
            names: one per portrait; with ``seed`` it names the noise, so that a portrait's avatar
                doesn't depend on the others in the batch.
            seed: names the noise.
            sampling: steps and guidance.

        Returns:
            [B, P, C, H, W] in [-1, 1], on the device.
        """
        features = self.encode(portraits)
        # In half precision as on disk, so that the stages run one by one give the same avatar.
        features = features.to(dtype=torch.float16).to(dtype=torch.float32)
        low_res = self.base(
            features,
            sampler=sampling.base,
            seed=[seed_of(seed, "base", name) for name in names],
        )
        low_res = low_res.half().float()
        if self.upsampler is None:
            return low_res
        return self.upsampler(
            low_res,
            features,
            sampler=sampling.upsampler,
            seed=[seed_of(seed, "upsampler", name) for name in names],
        )
