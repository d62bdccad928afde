"""Portrait → triplane by diffusion: encoder, base model and upsampler wired together.

Legend: B portraits, P = 3 planes, C channels, h H plane sizes of the base and the upsampler, S side
of a portrait.

::

    portrait ─ PortraitEncoder ─ features ─┬─ BaseTriplanePipeline ─ planes [B, P, C, h, h]
                                           └─ UpsampleTriplanePipeline ─ planes [B, P, C, H, H]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusion.conditioning.features import PortraitEncoder, PortraitFeatures, vae_hash
from diffusion.sampling.pipelines import BaseTriplanePipeline, UpsampleTriplanePipeline
from diffusion.sampling.sample_set import SamplerConfig, check_sampler_config, load_pipeline
from runtime.errors import UserError
from runtime.seeds import seed_of


@dataclass
class SamplingConfig:
    """How the two diffusion models are sampled."""

    guidance_scale: float = 1.3
    """Classifier-free guidance of the base model; 1 is none."""
    base_steps: int = 10
    """DDIM steps of the base model."""
    base_eta: float = 1.0
    """Noise of the base model's steps: 0 deterministic, 1 as much as DDPM."""
    upsampler_steps: int = 10
    """DDIM steps of the upsampler."""
    upsampler_eta: float = 1.0
    """Noise of the upsampler's steps: 0 deterministic, 1 as much as DDPM."""

    def of_base(self, model: Path) -> SamplerConfig:
        """As the stage sample-base takes it."""
        return _sampler(model, self.base_steps, self.base_eta)

    def of_upsampler(self, model: Path) -> SamplerConfig:
        """As the stage sample-upsampler takes it."""
        return _sampler(model, self.upsampler_steps, self.upsampler_eta)


def _sampler(model: Path, steps: int, eta: float) -> SamplerConfig:
    # Only the model and the sampler's settings are read; nothing goes through folders here.
    config = SamplerConfig(model=model, features=model, output_dir=model, steps=steps, eta=eta)
    check_sampler_config(config)
    return config


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
        base, trained = load_pipeline(
            BaseTriplanePipeline, sampling.of_base(Path(parts["base"])), device
        )
        upsampler = None
        if "upsampler" in parts:
            upsampler, other = load_pipeline(
                UpsampleTriplanePipeline, sampling.of_upsampler(Path(parts["upsampler"])), device
            )
            for key, meaning in (("decoder_hash", "decoder"), ("vae_hash", "VAE")):
                if trained[key] != other[key]:
                    raise UserError(
                        f"{parts['base']} and {parts['upsampler']} were trained with different "
                        f"{meaning}s; give two models of one chain."
                    )
        encoder = PortraitEncoder(str(parts["vae"]), int(str(trained["image_size"])), device)
        if vae_hash(encoder.vae) != trained["vae_hash"]:
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
            guidance_scale=sampling.guidance_scale,
            num_inference_steps=sampling.base_steps,
            eta=sampling.base_eta,
            seed=[seed_of(seed, "base", name) for name in names],
        )
        low_res = low_res.half().float()
        if self.upsampler is None:
            return low_res
        return self.upsampler(
            low_res,
            features,
            num_inference_steps=sampling.upsampler_steps,
            eta=sampling.upsampler_eta,
            seed=[seed_of(seed, "upsampler", name) for name in names],
        )
