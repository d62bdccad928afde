"""Trains the upsampler: high-resolution triplanes from low-resolution ones and portraits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.conditioning.features import PortraitFeatures
from diffusion.data.pairs import DenoisingBatch
from diffusion.data.upsampling_pairs import (
    AugmentConfig,
    UpsamplingBatch,
    UpsamplingDataset,
)
from diffusion.networks import TriplaneUpsampler
from diffusion.networks.normalization import NormalizationName
from diffusion.networks.upsampler import upsample_rollout
from diffusion.sampling.model_files import load_pipeline
from diffusion.sampling.pipelines import (
    BaseTriplanePipeline,
    Enlarge,
    UpsampleTriplanePipeline,
)
from diffusion.sampling.predictions import PredictionType
from diffusion.sampling.sample_set import check_decoder
from diffusion.sampling.schedules import ScheduleName
from diffusion.training.diffusion_config import DiffusionConfig, NetworkConfig
from diffusion.training.diffusion_training import DiffusionTraining
from diffusion.training.render_loss import PatchSource, render_losses
from diffusion.training.validation import HeldOutViews, PlaneComparison, sample_measures
from renderer.metrics import Lpips
from renderer.render import RenderSettings
from runtime.config import setting
from runtime.devices import select_device
from runtime.errors import UserError
from runtime.seeds import seed_of

MEASURED = 64
"""People whose residuals are measured, at most."""


@dataclass(kw_only=True)
class UpsamplerModelConfig(NetworkConfig):
    """Architecture of the upsampler; the defaults are the paper's sizes."""

    width: int = 128
    """Channels at full resolution."""
    multipliers: tuple[int, ...] = (1, 2, 4)
    """Channels of each resolution, in widths; each resolution halves the one before."""
    blocks: tuple[int, ...] = (2, 2, 6)
    """Residual blocks of each resolution."""
    attention_sizes: tuple[int, ...] = (256, 128)
    """Plane sizes that attend to the portrait's tokens."""
    residual: bool = True
    """Make what the enlarged small planes lack, so that an untrained model enlarges; as published
    the planes are made whole."""


@dataclass
class RenderLossConfig:
    """The loss on rendered patches of true views."""

    l1_weight: float = 1.0
    """Weight of the mean absolute error; 0 with lpips_weight 0 renders nothing."""
    lpips_weight: float = 0.0
    """Weight of VGG-LPIPS (needs its weights); the paper uses 0.5."""
    patch_size: int = setting(64, at_least=1, at_most=1024)
    """Side of the patch in pixels."""
    downscales: tuple[int, ...] = (2, 4, 8)
    """Factors by which a view may be shrunk before the patch is cut."""
    downscale_probabilities: tuple[float, ...] = (0.2, 0.45, 0.35)
    """Probability of each factor."""
    steps: int = 1024
    """Samples along the box's diagonal."""
    grid: int = 128
    """Cells along one side of the occupancy grid."""

    @property
    def renders(self) -> bool:
        """Return whether anything is rendered."""
        return self.l1_weight > 0 or self.lpips_weight > 0


@dataclass(kw_only=True)
class TrainUpsamplerConfig(DiffusionConfig):
    """Trains the upsampling triplane diffusion model."""

    root: Path = field()
    """Multi-view set: training identities and the views of the render loss."""
    base: Path | None = None
    """Base model (run or model folder): validation then enlarges planes that it samples, as
    generation does; without it, true planes that were shrunk."""
    low_res_size: int = 128
    """Side of the base model's planes."""
    plane_size: int = 512
    """Side of the planes the model makes; fitted planes are shrunk to it where larger."""
    model: UpsamplerModelConfig = field(default_factory=UpsamplerModelConfig)
    """Architecture."""
    normalization: NormalizationName = "mean"
    """What the model sees of a plane, as in train-base. With `mean`, resized planes keep the fine
    detail of the mean triplane, which all people share, and the model begins from those."""
    schedule: ScheduleName = "sigmoid"
    """Noise schedule."""
    prediction_type: PredictionType = "sample"
    """What the network predicts."""
    denoise_weight: float = 1.0
    """Weight of the squared error of the planes."""
    render: RenderLossConfig = field(default_factory=RenderLossConfig)
    """Loss on rendered patches."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Damage to the low-resolution planes."""

    def check(self) -> None:
        """As `DiffusionConfig.check`."""
        super().check()
        if not 0 < self.low_res_size < self.plane_size:
            raise UserError(
                f"low_res_size {self.low_res_size} must be smaller than plane_size "
                f"{self.plane_size}"
            )


class UpsamplerTraining(DiffusionTraining):
    """The training of the upsampler."""

    kind = UpsampleTriplanePipeline
    config: TrainUpsamplerConfig

    @property
    def extra_gib(self) -> float:
        """Return what rendering a patch keeps: an upper estimate for 64² rays of 1024 steps."""
        return 2.0 if self.config.render.renders else 0.0

    def __init__(self, config: TrainUpsamplerConfig) -> None:
        super().__init__(config, "train-upsampler", (config.low_res_size, config.plane_size))
        render, device = config.render, self.loop.device
        self.decoder = torch.nn.Module.to(self.fitted.decoder(), device)
        self.settings = RenderSettings(steps=render.steps, grid=render.grid)
        self.perceptual = Lpips("vgg", device) if render.lpips_weight > 0 else None

    def prepare(self) -> None:
        """Measure what enlarging leaves to do; open the base model."""
        self._small: dict[str, Tensor] = {}
        self._enlarge: Enlarge = "model"
        self.base = None
        if self.config.base is not None:
            self.base, trained = load_pipeline(
                BaseTriplanePipeline, self.config.base, select_device(self.config.device)
            )
            check_decoder(self.fitted, trained)
            if (size := self.base.unet.plane_size) != self.config.low_res_size:
                raise UserError(
                    f"{self.config.base} makes planes of {size}²: low_res_size must be the same"
                )
        if self.config.model.residual:
            people = self.subjects.train[:MEASURED]
            self.pairs.normalization.measure_residuals(map(self._residual, people))

    def _residual(self, name: str) -> Tensor:
        small, large = self.pairs.values(name)
        return large - upsample_rollout(small, self.config.plane_size)

    def build_model(self) -> TriplaneUpsampler:
        config = self.config
        return TriplaneUpsampler(
            plane_size=config.plane_size,
            low_res_size=config.low_res_size,
            **self.model_shapes,
            **asdict(config.model),
        )

    def make_dataset(self) -> UpsamplingDataset:
        config, render = self.config, self.config.render
        patches = None
        if render.renders:
            assert self.views is not None
            patches = PatchSource(
                self.views,
                render.patch_size,
                render.downscales,
                render.downscale_probabilities,
                config.cache_gib / 4,
            )
        return UpsamplingDataset(
            self.pairs,
            1 if self.regression else config.num_timesteps,
            config.condition_drop,
            config.seed,
            config.augment,
            patches,
            config.mirror,
        )

    def start_of(self, batch: DenoisingBatch, features: PortraitFeatures) -> Tensor | None:
        assert isinstance(batch, UpsamplingBatch)
        if not self.config.model.residual:
            return None
        return upsample_rollout(self.values_of(batch.low_res), self.config.plane_size)

    def predict(
        self, batch: DenoisingBatch, noisy: Tensor, features: PortraitFeatures, start: Tensor | None
    ) -> Tensor:
        assert isinstance(batch, UpsamplingBatch)
        small = self.values_of(batch.low_res)
        return self.loop.model(noisy, batch.timesteps, small, features, batch.drop)

    def weighed(
        self, losses: dict[str, Tensor], batch: DenoisingBatch, values: Tensor
    ) -> dict[str, Tensor]:
        """Adds the loss on rendered patches."""
        assert isinstance(batch, UpsamplingBatch)
        render = self.config.render
        losses["loss"] = self.config.denoise_weight * losses["loss"]
        if batch.patch is None:
            return losses
        # Half precision is too coarse for marching and for exponentials of density.
        with torch.autocast(self.loop.device.type, enabled=False):
            losses |= render_losses(
                self.planes_of(values),
                batch.planes,
                batch.patch,
                self.decoder,
                self.settings,
                self.perceptual,
            )
        losses["loss"] = losses["loss"] + render.l1_weight * losses["render_l1"]
        if self.perceptual is not None:
            losses["loss"] = losses["loss"] + render.lpips_weight * losses["render_lpips"]
        return losses

    def low_res(self, names: Sequence[str], features: PortraitFeatures) -> Tensor:
        """Planes [B, P, C, h, h] to enlarge: those the base model samples, or else true ones."""
        if self.base is None:
            return torch.stack([self.pairs.planes(name)[0] for name in names])
        if not all(name in self._small for name in names):
            seeds = [seed_of(self.config.seed, "base", name) for name in names]
            self._small |= zip(names, self.base(features, seed=seeds).cpu(), strict=True)
        return torch.stack([self._small[name] for name in names])

    def sample(
        self, names: Sequence[str], features: PortraitFeatures, enlarge: Enlarge = "model"
    ) -> Tensor:
        return self.pipeline()(
            self.low_res(names, features).to(self.loop.device),
            features,
            sampler=self.config.sampler,
            seed=self.config.seed,
            enlarge=enlarge,
        )

    best_by = "validation_texel_error"

    def measured(
        self,
        people: Sequence[str],
        truth: Tensor,
        compare: PlaneComparison,
        views: HeldOutViews | None,
    ) -> dict[str, float]:
        """Measures of the model's planes beside those of resized ones; decides who enlarges."""
        found: dict[Enlarge, dict[str, float]] = {}
        for way in ("model", "resizing"):
            planes = self.sampled(people, way)
            found[way] = sample_measures(people, planes, truth, compare, views)
            found[way]["validation_texel_error"] = texel_error(planes, truth)
        measures, plain = found["model"], found["resizing"]
        by = "validation_psnr" if views is not None else "validation_texel_error"
        better = measures[by] > plain[by] if views is not None else measures[by] < plain[by]
        self._enlarge = "model" if better else "resizing"
        self.loop.run.log(
            f"{self._enlarge} is closer to held-out people: {by} {measures[by]:.4g} of the model, "
            f"{plain[by]:.4g} of resizing"
        )
        renamed = {key.replace("_", "_resized_", 1): value for key, value in plain.items()}
        return measures | renamed

    def parts(self) -> dict[str, Any]:
        return super().parts() | {"enlarge": self._enlarge}


def texel_error(planes: Tensor, truth: Tensor) -> float:
    """Root mean square error of all texels, both [B, P, C, H, H] in -1..1."""
    return float((planes.cpu() - truth.cpu()).square().mean().sqrt())


def train_upsampler(config: TrainUpsamplerConfig) -> None:
    """Trains to `steps`; snapshots/model is a folder that UpsampleTriplanePipeline loads.

    Raises:
        UserError: on settings or data that can't be trained with.
    """
    UpsamplerTraining(config).run()
