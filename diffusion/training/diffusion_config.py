"""Settings that the base model's and the upsampler's training share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from diffusion.data.subjects import SubjectsConfig
from diffusion.networks.blocks import PlaneConvs
from diffusion.networks.normalization import NormalizationName
from diffusion.sampling.predictions import PredictionType
from diffusion.sampling.schedules import ScheduleName
from diffusion.sampling.solvers import SamplerConfig
from diffusion.training.loop_config import LoopConfig
from diffusion.training.validation import ValidationConfig
from runtime.config import setting
from runtime.errors import UserError


@dataclass(kw_only=True)
class NetworkConfig:
    """Architecture settings that both models have."""

    head_channels: int = 64
    """Width of an attention head."""
    dropout: float = 0.0
    """Dropout in residual blocks."""
    plane_convs: PlaneConvs = "shared"
    """3D-aware convolutions: one weight for the three planes in all convolutions of a level
    (shared), or a weight for each plane in the second convolution of each block (released)."""
    positions: bool = False
    """Tell the network which plane a texel is of and where it lies."""
    pixel_aligned: int = 0
    """Channels of portrait features laid where the portrait shows them; 0 for none."""
    latent_patch: int = 16
    """Side of the latent's patches, in texels of the latent."""
    latent_width: int = 64
    """Width of the latent's attention pooling."""
    feature_patches: tuple[int, int, int] = (16, 8, 4)
    """Side of a token's patch in each feature map, finest first."""
    token_width: int = 512
    """Width of the portrait tokens."""
    multi_scale: bool = True
    """Read tokens of all three feature maps, the finest at the finest planes; else of the coarsest
    map alone."""


@dataclass(kw_only=True)
class DiffusionConfig(SubjectsConfig, LoopConfig):
    """Settings of a diffusion training; see the two stages."""

    removed_settings: ClassVar[dict[str, str]] = {
        "subtract_mean": "write normalization mean, or none for planes as published",
        "sample_steps": "write sampler.steps",
        "sample_guidance": "write sampler.guidance_scale",
    }

    triplanes: Path
    """Fitted set (output of fit-triplanes)."""
    features: Path | None = None
    """Portrait features (output of encode-features); or give --vae and --root."""
    vae: str | None = None
    """AutoencoderKL that encodes the pictures of --root on the training's device, in place of
    stored features: a folder or a hub id."""
    image_size: int = 256
    """Side in pixels that --vae sees."""
    mirror: bool = False
    """Learn from mirrored people as well (needs --vae: stored features can't be mirrored)."""
    photographs: float = setting(0.0, at_least=0, at_most=1)
    """Share of samples whose portrait is one of those drawn as photographs are (`studio render
    --portraits`: other light, turns, framings, expressions), chosen at random each time; needs
    --vae. People without any keep their frontal portrait."""
    start_from: Path | None = None
    """A trained model (run or model folder) of the same architecture; a new run begins with its
    weights and normalisation."""
    plane_size: int = 128
    """Side of the planes the model makes; fitted planes are shrunk to it."""
    normalization: NormalizationName = "channel"
    """What the model sees of a plane: its values as published (none), every channel at one spread
    (channel), or the difference from the mean triplane at one spread (mean): needs fewer subjects
    and steps where triplanes were fitted from a common start."""
    objective: Literal["diffusion", "regression"] = "diffusion"
    """Learn to denoise, or to give the expected planes in one pass."""
    schedule: ScheduleName = "cosine_light"
    """Noise schedule."""
    num_timesteps: int = 1000
    """Timesteps of the noise schedule."""
    prediction_type: PredictionType = "epsilon"
    """What the network predicts: the noise, clean planes (sample), v_prediction, or EDM's mixture
    of both with preconditioned inputs (edm)."""
    snr_gamma: float | None = None
    """Gamma of min-SNR loss weighting; plain squared error without it."""
    condition_drop: float = setting(0.0, at_least=0, at_most=1)
    """Share of samples whose portrait is withheld, for guidance."""
    gradient_checkpointing: bool = setting(False, resumable=True)
    """Compute activations again in the backward pass: a quarter of the memory, slower."""
    fit_memory: bool = setting(False, resumable=True)
    """Choose gradient_accumulation and gradient_checkpointing by the number of cards and their
    memory; the log says what was chosen. Without a GPU the two stay as they are."""
    cache_gib: float = 4.0
    """Memory for stored features and pictures of views, GiB each process (shrunk planes and
    portraits lie in files that all processes share)."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    """How sample pictures and validation are sampled."""
    sample_pixels: int = 128
    """Side of a rendered view in the sample pictures, in pixels."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """What is measured on held-out people; needs validation identities."""

    def check(self) -> None:
        """Refuse settings that contradict each other, by name.

        Raises:
            UserError: says which.
        """
        if (self.features is None) == (self.vae is None):
            raise UserError("give either --features, or --vae and --root to encode on the go")
        if self.vae is not None and self.root is None:
            raise UserError("--vae needs --root, the multi-view set with the portraits' pictures")
        if self.mirror and self.vae is None:
            raise UserError(
                "--mirror needs the portraits' pictures: give --vae and --root in place of "
                "--features"
            )
        if self.photographs and self.vae is None:
            raise UserError(
                "--photographs needs the pictures themselves: give --vae and --root in place of "
                "--features"
            )
        if self.objective == "regression" and self.condition_drop:
            raise UserError("condition_drop is for guidance, which a regression doesn't have: 0")
