"""Trains the base model: low-resolution triplanes from portraits."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from captures.multiview import MultiViewSet
from diffusion.conditioning.feature_set import FeatureSet
from diffusion.conditioning.features import PortraitFeatures
from diffusion.networks import TriplaneUNet
from diffusion.sampling.pipelines import BaseTriplanePipeline
from diffusion.sampling.schedules import ScheduleName, alphas_cumprod, make_scheduler
from diffusion.training.loop import TrainingLoop
from diffusion.training.loop_config import LoopConfig
from diffusion.training.objectives import DenoisingObjective, PredictionType
from diffusion.training.pairs import (
    DenoisingBatch,
    DenoisingDataset,
    PairedSet,
    describe_data,
    training_names,
)
from diffusion.training.snapshot_pictures import PICTURES, comparison_sheet
from renderer.fitted_set import FittedSet
from runtime.errors import UserError
from runtime.files import write_json


@dataclass
class BaseModelConfig:
    """Architecture of the base model; the defaults are the paper's."""

    width: int = 192
    """Channels at full resolution."""
    multipliers: tuple[int, ...] = (1, 1, 2, 3, 4)
    """Channels of each resolution, in widths; each resolution halves the one before."""
    blocks: int = 3
    """Residual blocks of each resolution."""
    attention_sizes: tuple[int, ...] = (32, 16, 8)
    """Plane sizes with attention; the finest reads the finest feature map."""
    plane_aware_levels: tuple[int, ...] = (0,)
    """Resolutions with 3D-aware convolutions; 0 is the full one."""
    head_channels: int = 64
    """Width of an attention head."""
    dropout: float = 0.0
    """Dropout in residual blocks."""
    latent_patch: int = 16
    """Side of the latent's patches, in texels of the latent."""
    latent_width: int = 64
    """Width of the latent's attention pooling."""
    feature_patches: tuple[int, int, int] = (16, 8, 4)
    """Side of a token's patch in each feature map, finest first."""
    token_width: int = 512
    """Width of the portrait tokens."""


@dataclass(kw_only=True)
class TrainBaseConfig(LoopConfig):
    """Trains the base triplane diffusion model on a fitted set and its portraits' features."""

    triplanes: Path
    """Fitted set (output of fit-triplanes)."""
    features: Path
    """Portrait features (output of encode-features)."""
    root: Path | None = None
    """Multi-view set whose training identities are used; all triplanes without it."""
    convention: str | None = None
    """Camera convention of a set without dataset.json, e.g. rodinhd."""
    txt_file: Path | None = None
    """Text file with one subject per line; all training identities without it."""
    start_idx: int = 0
    """First subject of the list."""
    end_idx: int | None = None
    """Subject of the list to stop before; the end without it."""
    plane_size: int = 128
    """Side of the planes the model makes; fitted planes are shrunk to it."""
    subtract_mean: bool = False
    """Learn scaled differences from the mean triplane, not planes as published: needs fewer
    subjects and steps where triplanes were fitted from a common start."""
    model: BaseModelConfig = field(default_factory=BaseModelConfig)
    """Architecture."""
    schedule: ScheduleName = "cosine_light"
    """Noise schedule."""
    num_timesteps: int = 1000
    """Timesteps of the noise schedule."""
    prediction_type: PredictionType = "epsilon"
    """What the network predicts."""
    learned_variance: bool = True
    """Learn the variance between its bounds (adds the variational bound to the loss)."""
    vlb_weight: float | None = None
    """Weight of the variational bound; num_timesteps / 1000 without it."""
    snr_gamma: float | None = None
    """Gamma of min-SNR loss weighting; plain squared error without it."""
    condition_drop: float = 0.2
    """Share of samples whose portrait is withheld, for guidance."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: about a seventh of the memory, slower."""
    cache_gib: float = 4.0
    """Memory for triplanes and features, GiB each process."""
    sample_steps: int = 10
    """Sampler steps of the sample pictures."""
    sample_guidance: float = 1.3
    """Guidance scale of the sample pictures."""
    sample_pixels: int = 128
    """Side of a rendered view in the sample pictures, in pixels."""


def build_base_model(config: TrainBaseConfig, channels: int, features: FeatureSet) -> TriplaneUNet:
    """The untrained model for planes of C channels and these features.

    Raises:
        UserError: when the settings make no model, with the model's own reason.
    """
    try:
        return TriplaneUNet(
            plane_channels=channels,
            plane_size=config.plane_size,
            learned_variance=config.learned_variance,
            mean_guide=config.subtract_mean,
            **features.shapes(),
            **asdict(config.model),
        )
    except ValueError as error:
        raise UserError(f"the settings under model don't fit the data: {error}") from error


def train_base(config: TrainBaseConfig) -> None:
    """Trains to `steps`; snapshots/model is a folder that BaseTriplanePipeline loads.

    Raises:
        UserError: on settings or data that can't be trained with.
    """
    fitted, features = FittedSet.open(config.triplanes), FeatureSet.open(config.features)
    views = MultiViewSet(config.root, config.convention) if config.root is not None else None
    names = training_names(fitted, views, config.txt_file, config.start_idx, config.end_idx)
    pairs = PairedSet(
        fitted, features, names, (config.plane_size,), config.cache_gib, config.subtract_mean
    )
    dataset = DenoisingDataset(
        pairs, config.num_timesteps, config.condition_drop, config.seed, "base"
    )
    torch.manual_seed(config.seed)
    model = build_base_model(config, fitted.shape[1], features)
    if config.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    loop = TrainingLoop(config, "train-base", model)
    objective = DenoisingObjective(
        alphas_cumprod(config.schedule, config.num_timesteps),
        config.prediction_type,
        config.learned_variance,
        config.snr_gamma,
        config.vlb_weight,
        loop.device,
    )
    scheduler = make_scheduler(config.schedule, config.num_timesteps, config.prediction_type)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    loop.run.log(f"{len(names)} subjects, {parameters / 1e6:.2f}M parameters")

    guide = pairs.mean.guide().to(loop.device) if pairs.mean is not None else None

    def losses(batch: DenoisingBatch) -> dict[str, Tensor]:
        noisy = objective.noisy(batch.start, batch.noise, batch.timesteps)
        output = loop.model(noisy, batch.timesteps, batch.features, batch.drop, guide)
        return objective.losses(output, batch.start, batch.noise, noisy, batch.timesteps)

    def pipeline() -> BaseTriplanePipeline:
        return BaseTriplanePipeline(unet=loop.bare_model, scheduler=scheduler, mean=pairs.mean)

    def save_model(folder: Path) -> None:
        pipeline().save_pretrained(folder)
        write_json(folder / "training_data.json", describe_data(pairs) | {"step": loop.step})

    def draw_samples(step: int) -> None:
        shown = names[:PICTURES]
        portraits = PortraitFeatures.stack([pairs.portrait(name) for name in shown])
        planes = pipeline()(
            portraits.to(loop.device),
            guidance_scale=config.sample_guidance,
            num_inference_steps=config.sample_steps,
            seed=config.seed,
        )
        sheet = comparison_sheet(
            [(pairs.true_planes(name), plane) for name, plane in zip(shown, planes, strict=True)],
            fitted.decoder(),
            config.sample_pixels,
        )
        loop.run.save_image(f"samples_{step:08d}.png", sheet)

    loop.train(dataset, DenoisingBatch.join, losses, save_model, draw_samples)
