"""Portrait → avatar: encoder, base model, upsampler and decoder wired together.

Legend: B portraits, P = 3 planes, C channels, h H plane sizes of the base and the upsampler.

::

    portrait ─ PortraitEncoder ─ features ─┬─ BaseTriplanePipeline ─ planes [B, P, C, h, h]
                                           └─ UpsampleTriplanePipeline ─ planes [B, P, C, H, H]
    planes + TriplaneDecoder ─ renderer ─ any view
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusion.conditioning.features import PortraitEncoder, PortraitFeatures, vae_hash
from diffusion.sampling.pipelines import BaseTriplanePipeline, UpsampleTriplanePipeline
from diffusion.sampling.sample_set import SamplerConfig, check_sampler_config, load_pipeline
from renderer.decoder import TriplaneDecoder
from renderer.fitted_set import load_decoder
from runtime.errors import UserError
from runtime.seeds import seed_of
from triavatar.views import on_device


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


class AvatarPipeline:
    """Everything between a portrait and a triplane.

    Attributes:
        encoder: portrait to features.
        base, upsampler: the two diffusion pipelines.
        decoder: the shared decoder that renders the triplanes.
        device: where all of them are.

    Example:
        >>> sampling = SamplingConfig()
        >>> pipeline = AvatarPipeline.from_folders(vae, base, upsampler, decoder, sampling, device)
        >>> planes = pipeline([picture], ["anna"], seed=0, sampling=sampling)
        >>> planes.shape
        torch.Size([1, 3, 32, 512, 512])
    """

    def __init__(
        self,
        encoder: PortraitEncoder,
        base: BaseTriplanePipeline,
        upsampler: UpsampleTriplanePipeline,
        decoder: TriplaneDecoder,
        device: torch.device,
    ) -> None:
        """Take the parts; raises UserError when base and upsampler don't fit each other."""
        if base.unet.config["plane_size"] != upsampler.unet.config["low_res_size"]:
            raise UserError(
                f"the base model makes planes of {base.unet.config['plane_size']}² but the "
                f"upsampler takes {upsampler.unet.config['low_res_size']}²; "
                "train both with the same sizes."
            )
        self.encoder = encoder
        self.base = base
        self.upsampler = upsampler
        self.decoder = on_device(decoder, device)
        self.device = device

    @classmethod
    def from_folders(
        cls,
        vae: str,
        base: Path,
        upsampler: Path,
        decoder: Path,
        sampling: SamplingConfig,
        device: torch.device,
    ) -> "AvatarPipeline":
        """Load the parts and check that they were made for each other.

        Args:
            vae: AutoencoderKL folder or hub id.
            base, upsampler: run folders of the trainings, or their ``snapshots/model``.
            decoder: decoder folder of a fitting run.
            sampling: how the models will be sampled.
            device: where to put them.

        Raises:
            UserError: a part is missing or damaged, or was trained with another decoder or VAE.
        """
        first, trained = load_pipeline(BaseTriplanePipeline, sampling.of_base(base), device)
        second, other = load_pipeline(
            UpsampleTriplanePipeline, sampling.of_upsampler(upsampler), device
        )
        for key, meaning in (("decoder_hash", "decoder"), ("vae_hash", "VAE")):
            if trained[key] != other[key]:
                raise UserError(
                    f"{base} and {upsampler} were trained with different {meaning}s; "
                    "give two models of one chain."
                )
        encoder = PortraitEncoder(vae, int(str(trained["image_size"])), device)
        if vae_hash(encoder.vae) != trained["vae_hash"]:
            raise UserError(f"the VAE {vae} is not the one {base} was trained with.")
        shared = load_decoder(decoder, str(trained["decoder_hash"]))
        return cls(encoder, first, second, shared, device)

    @property
    def triplane_shape(self) -> tuple[int, int, int, int]:
        """(P, C, H, W) of the finished triplanes."""
        config = self.upsampler.unet.config
        return (3, config["plane_channels"], config["plane_size"], config["plane_size"])

    def encode(self, portraits: Sequence[np.ndarray]) -> PortraitFeatures:
        """Features of square portraits, uint8 [H, W, 3|4]; UserError if the models take others."""
        features = self.encoder.encode_portraits(portraits)
        try:
            self.base.unet.portrait.check(features)
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
        """Sample one triplane per portrait.

        Args:
            portraits: B square pictures, uint8 [H, W, 3|4], straight alpha.
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
        return self.upsampler(
            low_res,
            features,
            num_inference_steps=sampling.upsampler_steps,
            eta=sampling.upsampler_eta,
            seed=[seed_of(seed, "upsampler", name) for name in names],
        )
