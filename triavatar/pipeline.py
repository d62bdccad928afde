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
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion.features import PortraitEncoder, PortraitFeatures, vae_hash
from diffusion.pipelines import BaseTriplanePipeline, UpsampleTriplanePipeline
from renderer.decoder import TriplaneDecoder, decoder_hash
from renderer.fitted_set import load_decoder
from runtime.errors import UserError
from runtime.files import read_json
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


class AvatarPipeline:
    """Everything between a portrait and a triplane.

    Attributes:
        encoder: portrait to features.
        base, upsampler: the two diffusion pipelines.
        decoder: the shared decoder that renders the triplanes.
        device: where all of them are.

    Example:
        >>> pipeline = AvatarPipeline.from_folders(vae, base, upsampler, decoder, device)
        >>> planes = pipeline([picture], ["anna"], seed=0, sampling=SamplingConfig())
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
        self.base = base.to(device)
        self.upsampler = upsampler.to(device)
        self.decoder = on_device(decoder, device)
        self.device = device
        for pipeline in (self.base, self.upsampler):
            pipeline.set_progress_bar_config(disable=True)

    @classmethod
    def from_folders(
        cls, vae: str, base: Path, upsampler: Path, decoder: Path, device: torch.device
    ) -> "AvatarPipeline":
        """Load the parts and check that they were made for each other.

        Args:
            vae: AutoencoderKL folder or hub id.
            base, upsampler: ``snapshots/model`` of the training runs.
            decoder: decoder folder of a fitting run.
            device: where to put them.

        Raises:
            UserError: a part is missing or damaged, or was trained with another decoder or VAE.
        """
        data = training_data(base)
        other = training_data(upsampler)
        for key, meaning in (("decoder_hash", "decoder"), ("vae_hash", "VAE")):
            if data[key] != other[key]:
                raise UserError(
                    f"{base} and {upsampler} were trained with different {meaning}s; "
                    "give two models of one chain."
                )
        encoder = PortraitEncoder(vae, data["image_size"], device)
        if vae_hash(encoder.vae) != data["vae_hash"]:
            raise UserError(f"the VAE {vae} is not the one {base} was trained with.")
        shared = load_decoder(decoder)
        if decoder_hash(shared) != data["decoder_hash"]:
            raise UserError(f"the decoder {decoder} is not the one {base} was trained with.")
        return cls(
            encoder,
            BaseTriplanePipeline.from_pretrained(base),
            UpsampleTriplanePipeline.from_pretrained(upsampler),
            shared,
            device,
        )

    @property
    def triplane_shape(self) -> tuple[int, int, int, int]:
        """(P, C, H, W) of the finished triplanes."""
        config = self.upsampler.unet.config
        return (3, config["plane_channels"], config["plane_size"], config["plane_size"])

    def encode(self, portraits: Sequence[np.ndarray]) -> PortraitFeatures:
        """Features of square portraits, uint8 [H, W, 3|4]."""
        return self.encoder.encode_portraits(portraits)

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
        low_res = self.base(
            features,
            guidance_scale=sampling.guidance_scale,
            num_inference_steps=sampling.base_steps,
            eta=sampling.base_eta,
            seed=[seed_of(seed, "base", name) for name in names],
        )
        return self.upsampler(
            low_res,
            features,
            num_inference_steps=sampling.upsampler_steps,
            eta=sampling.upsampler_eta,
            seed=[seed_of(seed, "upsampler", name) for name in names],
        )


def training_data(folder: Path) -> dict[str, Any]:
    """What a model folder says it was trained on: decoder_hash, vae_hash, image_size.

    Raises:
        UserError: the folder is none that training wrote.
    """
    if not (folder / "model_index.json").is_file():
        raise UserError(
            f"{folder} is no model folder (no model_index.json); give <run>/snapshots/model of "
            "train-base or train-upsampler."
        )
    data = read_json(folder / "training_data.json")
    for key in ("decoder_hash", "vae_hash", "image_size"):
        if key not in data:
            raise UserError(f"{folder / 'training_data.json'} lacks {key}; train the model again.")
    return data
