"""Trains the upsampler: high-resolution triplanes from low-resolution ones and portraits."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from captures.multiview import MultiViewSet
from diffusion.conditioning.feature_set import FeatureSet
from diffusion.conditioning.features import PortraitFeatures
from diffusion.networks import TriplaneUpsampler
from diffusion.sampling.pipelines import UpsampleTriplanePipeline
from diffusion.sampling.schedules import ScheduleName, alphas_cumprod, make_scheduler
from diffusion.training.loop import TrainingLoop
from diffusion.training.loop_config import LoopConfig
from diffusion.training.objectives import DenoisingObjective
from diffusion.training.pairs import PairedSet, describe_data, training_names
from diffusion.training.render_loss import PatchSource, render_losses
from diffusion.training.snapshot_pictures import PICTURES, comparison_sheet
from diffusion.training.upsampling_pairs import AugmentConfig, UpsamplingBatch, UpsamplingDataset
from renderer.fitted_set import FittedSet
from renderer.metrics import Lpips
from renderer.render import RenderSettings
from renderer.triplane import unroll
from runtime.errors import UserError
from runtime.files import write_json


@dataclass
class UpsamplerModelConfig:
    """Architecture of the upsampler; the defaults are the paper's."""

    width: int = 128
    """Channels at full resolution."""
    multipliers: tuple[int, ...] = (1, 2, 4)
    """Channels of each resolution, in widths; each resolution halves the one before."""
    blocks: tuple[int, ...] = (2, 2, 6)
    """Residual blocks of each resolution."""
    attention_sizes: tuple[int, ...] = (256, 128)
    """Plane sizes that attend to the portrait's tokens."""
    head_channels: int = 64
    """Width of an attention head."""
    dropout: float = 0.0
    """Dropout in residual blocks."""
    residual: bool = False
    """Predict the difference to the resized low-resolution planes; learns in a fraction of the
    steps. As published the planes are predicted whole."""
    latent_patch: int = 16
    """Side of the latent's patches, in texels of the latent."""
    latent_width: int = 64
    """Width of the latent's attention pooling."""
    feature_patches: tuple[int, int, int] = (16, 8, 4)
    """Side of a token's patch in each feature map, finest first."""
    token_width: int = 512
    """Width of the portrait tokens."""


@dataclass
class RenderLossConfig:
    """The loss on rendered patches of true views."""

    l1_weight: float = 1.0
    """Weight of the mean absolute error; 0 with lpips_weight 0 renders nothing."""
    lpips_weight: float = 0.0
    """Weight of VGG-LPIPS (needs its weights); the paper uses 0.5."""
    patch_size: int = 64
    """Side of the patch in pixels."""
    downscales: tuple[int, ...] = (2, 4, 8)
    """Factors by which a view may be shrunk before the patch is cut."""
    downscale_probabilities: tuple[float, ...] = (0.2, 0.45, 0.35)
    """Probability of each factor."""
    steps: int = 1024
    """Samples along the box's diagonal."""
    grid: int = 128
    """Cells along one side of the occupancy grid."""


@dataclass(kw_only=True)
class TrainUpsamplerConfig(LoopConfig):
    """Trains the upsampling triplane diffusion model; it predicts clean planes."""

    triplanes: Path
    """Fitted set (output of fit-triplanes)."""
    features: Path
    """Portrait features (output of encode-features)."""
    root: Path
    """Multi-view set: training identities and the views of the render loss."""
    convention: str | None = None
    """Camera convention of a set without dataset.json, e.g. rodinhd."""
    txt_file: Path | None = None
    """Text file with one subject per line; all training identities without it."""
    start_idx: int = 0
    """First subject of the list."""
    end_idx: int | None = None
    """Subject of the list to stop before; the end without it."""
    low_res_size: int = 128
    """Side of the base model's planes."""
    plane_size: int = 512
    """Side of the planes the model makes; fitted planes are shrunk to it where larger."""
    subtract_mean: bool = False
    """Learn scaled differences from the mean triplane, not planes as published: needs fewer
    subjects and steps where triplanes were fitted from a common start."""
    model: UpsamplerModelConfig = field(default_factory=UpsamplerModelConfig)
    """Architecture."""
    schedule: ScheduleName = "sigmoid"
    """Noise schedule."""
    num_timesteps: int = 100
    """Timesteps of the noise schedule."""
    snr_gamma: float | None = None
    """Gamma of min-SNR loss weighting; plain squared error without it."""
    denoise_weight: float = 1.0
    """Weight of the squared error of the planes."""
    condition_drop: float = 0.0
    """Share of samples whose portrait is withheld."""
    render: RenderLossConfig = field(default_factory=RenderLossConfig)
    """Loss on rendered patches."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Damage to the low-resolution planes."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: about a seventh of the memory, slower."""
    cache_gib: float = 4.0
    """Memory for triplanes, features and pictures, GiB each process."""
    sample_steps: int = 10
    """Sampler steps of the sample pictures."""
    sample_pixels: int = 128
    """Side of a rendered view in the sample pictures, in pixels."""


def build_upsampler(
    config: TrainUpsamplerConfig, channels: int, features: FeatureSet
) -> TriplaneUpsampler:
    """The untrained model for planes of C channels and these features.

    Raises:
        UserError: when the settings make no model, with the model's own reason.
    """
    try:
        return TriplaneUpsampler(
            plane_channels=channels,
            plane_size=config.plane_size,
            low_res_size=config.low_res_size,
            **features.shapes(),
            **asdict(config.model),
        )
    except ValueError as error:
        raise UserError(f"the settings under model don't fit the data: {error}") from error


def train_upsampler(config: TrainUpsamplerConfig) -> None:
    """Trains to `steps`; snapshots/model is a folder that UpsampleTriplanePipeline loads.

    Raises:
        UserError: on settings or data that can't be trained with.
    """
    if not 0 < config.low_res_size < config.plane_size:
        raise UserError(
            f"low_res_size {config.low_res_size} must be smaller than plane_size "
            f"{config.plane_size}"
        )
    fitted, features = FittedSet.open(config.triplanes), FeatureSet.open(config.features)
    views = MultiViewSet(config.root, config.convention)
    names = training_names(fitted, views, config.txt_file, config.start_idx, config.end_idx)
    sizes = (config.low_res_size, config.plane_size)
    pairs = PairedSet(fitted, features, names, sizes, config.cache_gib / 2, config.subtract_mean)
    renders = config.render.l1_weight > 0 or config.render.lpips_weight > 0
    patches = (
        PatchSource(
            views,
            config.render.patch_size,
            config.render.downscales,
            config.render.downscale_probabilities,
            config.cache_gib / 2,
        )
        if renders
        else None
    )
    dataset = UpsamplingDataset(
        pairs,
        config.num_timesteps,
        config.condition_drop,
        config.seed,
        config.augment,
        patches,
    )
    torch.manual_seed(config.seed)
    model = build_upsampler(config, fitted.shape[1], features)
    if config.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    loop = TrainingLoop(config, "train-upsampler", model)
    decoder = fitted.decoder().to(loop.device)
    settings = RenderSettings(steps=config.render.steps, grid=config.render.grid)
    perceptual = Lpips("vgg", loop.device) if config.render.lpips_weight > 0 else None
    objective = DenoisingObjective(
        alphas_cumprod(config.schedule, config.num_timesteps),
        "sample",
        snr_gamma=config.snr_gamma,
        device=loop.device,
    )
    scheduler = make_scheduler(config.schedule, config.num_timesteps, "sample")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    loop.run.log(f"{len(names)} subjects, {parameters / 1e6:.2f}M parameters")

    mean = copy.deepcopy(pairs.mean).to(loop.device) if pairs.mean is not None else None

    def whole(rolled_out: Tensor) -> Tensor:
        planes = unroll(rolled_out)
        return planes if mean is None else mean.planes(planes)

    def losses(batch: UpsamplingBatch) -> dict[str, Tensor]:
        noisy = objective.noisy(batch.start, batch.noise, batch.timesteps)
        predicted = loop.model(
            noisy, batch.timesteps, batch.low_res, batch.features, batch.drop
        ).float()
        values = objective.losses(predicted, batch.start, batch.noise, noisy, batch.timesteps)
        values["loss"] = config.denoise_weight * values["loss"]
        if batch.patch is not None:
            # Half precision is too coarse for marching and for exponentials of density.
            with torch.autocast(loop.device.type, enabled=False):
                values |= render_losses(
                    whole(predicted),
                    whole(batch.start),
                    batch.patch,
                    decoder,
                    settings,
                    perceptual,
                )
            values["loss"] = values["loss"] + config.render.l1_weight * values["render_l1"]
            if perceptual is not None:
                weighted = config.render.lpips_weight * values["render_lpips"]
                values["loss"] = values["loss"] + weighted
        return values

    def pipeline() -> UpsampleTriplanePipeline:
        return UpsampleTriplanePipeline(unet=loop.bare_model, scheduler=scheduler, mean=pairs.mean)

    def save_model(folder: Path) -> None:
        pipeline().save_pretrained(folder)
        write_json(folder / "training_data.json", describe_data(pairs) | {"step": loop.step})

    def draw_samples(step: int) -> None:
        shown = names[:PICTURES]
        portraits = PortraitFeatures.stack([pairs.portrait(name) for name in shown])
        low_res = torch.cat([pairs.whole(pairs.planes(name)[0]) for name in shown])
        planes = pipeline()(
            low_res.to(loop.device),
            portraits.to(loop.device),
            num_inference_steps=config.sample_steps,
            seed=config.seed,
        )
        sheet = comparison_sheet(
            [(pairs.true_planes(name), plane) for name, plane in zip(shown, planes, strict=True)],
            fitted.decoder(),
            config.sample_pixels,
        )
        loop.run.save_image(f"samples_{step:08d}.png", sheet)

    loop.train(dataset, UpsamplingBatch.join, losses, save_model, draw_samples)
