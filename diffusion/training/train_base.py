"""Trains the base model: low-resolution triplanes from portraits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.conditioning.features import PortraitFeatures
from diffusion.data.pairs import DenoisingBatch, DenoisingDataset
from diffusion.data.portraits import PicturePortraits
from diffusion.networks import LinearExpectation, TriplaneUNet
from diffusion.sampling.model_files import open_model
from diffusion.sampling.pipelines import BaseTriplanePipeline, base_guide, expected_values
from diffusion.training.diffusion_config import DiffusionConfig, NetworkConfig
from diffusion.training.diffusion_training import DiffusionTraining
from diffusion.training.linear_start import MOST, LinearStart
from runtime.devices import select_device
from runtime.errors import UserError

MEASURED = 64
"""People whose residuals are measured, at most."""


@dataclass(kw_only=True)
class BaseModelConfig(NetworkConfig):
    """Architecture of the base model; the defaults are the paper's sizes."""

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


@dataclass(kw_only=True)
class TrainBaseConfig(DiffusionConfig):
    """Trains the base triplane diffusion model on a fitted set and its people's portraits."""

    start: Path | None = None
    """Run folder of a regression (train-base --objective regression): its expected triplane is
    where the model starts, and what is learnt is what that lacks."""
    linear_start: bool = False
    """Start from a linear regression of planes on portraits, learnt in closed form before the first
    step; what is learnt is what it lacks of people it has not seen."""
    model: BaseModelConfig = field(default_factory=BaseModelConfig)
    """Architecture."""
    learned_variance: bool = False
    """Learn the variance between its bounds, for ddpm (adds the variational bound to the loss)."""
    vlb_weight: float | None = None
    """Weight of the variational bound; num_timesteps / 1000 without it."""

    def check(self) -> None:
        """As `DiffusionConfig.check`."""
        super().check()
        if self.objective == "regression" and (self.learned_variance or self.start is not None):
            raise UserError("a regression takes neither learned_variance nor start")
        if self.start is not None and self.linear_start:
            raise UserError("a model has one start: give either start or linear_start")
        if self.starts and self.normalization == "none":
            raise UserError("a start needs normalization channel or mean: residuals are small")

    @property
    def starts(self) -> bool:
        """Whether the model completes an expected triplane."""
        return self.start is not None or self.linear_start


class BaseTraining(DiffusionTraining):
    """The training of the base model."""

    kind = BaseTriplanePipeline
    config: TrainBaseConfig
    expectation: TriplaneUNet | LinearExpectation | None = None
    linear: LinearStart | None = None

    def __init__(self, config: TrainBaseConfig) -> None:
        super().__init__(config, "train-base", (config.plane_size,))
        if self.linear is not None:
            self.linear.to(self.loop.device)
        elif self.expectation is not None:
            torch.nn.Module.to(self.expectation, self.loop.device)

    def prepare(self) -> None:
        """Open or learn the regression that the model starts from."""
        if self.config.linear_start:
            self._learn_start()
        elif self.config.start is not None:
            self._open_start(self.config.start)

    def _learn_start(self) -> None:
        if isinstance(self.portraits, PicturePortraits):
            self.portraits.encoder.to(select_device(self.config.device))
        both = (False, True) if self.config.mirror else (False,)
        people = self.subjects.train[: MOST // len(both)]
        rows = [(name, mirrored) for name in people for mirrored in both]
        features = [self._portrait(*row) for row in rows]
        values = [self.pairs.values(*row)[-1][0] for row in rows]
        self.linear = LinearStart([name for name, _ in rows], features, values)
        self.expectation = self.linear.expectation
        residuals = (
            value - self.linear([name], each)[0]
            for (name, _), each, value in zip(rows, features, values, strict=True)
        )
        self.pairs.normalization.measure_residuals(residuals)

    def _portrait(self, name: str, mirrored: bool = False) -> PortraitFeatures:
        """Features of a person's frontal portrait, on the CPU, where starts are learnt."""
        return self.portraits.features(self.portraits.draw(name, mirrored=mirrored)).to("cpu")

    def _open_start(self, start: Path) -> None:
        """Open a regression; its normalisation is taken over."""
        folder, trained = open_model(start, BaseTriplanePipeline)
        found = BaseTriplanePipeline.from_pretrained(folder, local_files_only=True)
        if found.scheduler is not None or found.expectation is not None:
            raise UserError(f"{folder} is no regression: train it with --objective regression")
        if trained.get("decoder_hash") != self.fitted.manifest["decoder_hash"]:
            raise UserError(f"{folder} was trained on triplanes of another decoder")
        if trained.get("vae_hash") != self.portraits.manifest["vae_hash"]:
            raise UserError(f"{folder} was trained with another VAE")
        self.expectation = found.unet.eval().requires_grad_(False)
        self.pairs.normalization = found.normalization
        # The regression knows its own training people better than any others.
        people = self.subjects.validation or self.subjects.train
        self.pairs.normalization.measure_residuals(map(self._residual, people[:MEASURED]))

    @torch.no_grad()
    def _residual(self, name: str) -> Tensor:
        assert isinstance(self.expectation, TriplaneUNet)
        features = self._portrait(name)
        values = self.pairs.values(name)[-1]
        return values - expected_values(self.expectation, self.pairs.normalization, features, 1)

    def build_model(self) -> TriplaneUNet:
        config = self.config
        return TriplaneUNet(
            plane_size=config.plane_size,
            learned_variance=config.learned_variance,
            guided=config.starts or config.normalization == "mean",
            **self.model_shapes,
            **asdict(config.model),
        )

    def make_dataset(self) -> DenoisingDataset:
        config = self.config
        timesteps = 1 if self.regression else config.num_timesteps
        return DenoisingDataset(
            self.pairs, timesteps, config.condition_drop, config.seed, "base", config.mirror
        )

    @torch.no_grad()
    def start_of(self, batch: DenoisingBatch, features: PortraitFeatures) -> Tensor | None:
        if self.linear is not None:
            return self.linear(batch.names, features)
        if self.expectation is None:
            return None
        return expected_values(self.expectation, self.on_device, features, len(features))

    def predict(
        self, batch: DenoisingBatch, noisy: Tensor, features: PortraitFeatures, start: Tensor | None
    ) -> Tensor:
        guide = base_guide(self.loop.bare_model, self.on_device, start)
        return self.loop.model(noisy, batch.timesteps, features, batch.drop, guide)

    def parts(self) -> dict[str, Any]:
        return super().parts() | {"expectation": self.expectation}

    def sample(self, names: Sequence[str], features: PortraitFeatures) -> Tensor:
        return self.pipeline()(features, sampler=self.config.sampler, seed=self.config.seed)


def train_base(config: TrainBaseConfig) -> None:
    """Trains to `steps`; snapshots/model is a folder that BaseTriplanePipeline loads.

    Raises:
        UserError: on settings or data that can't be trained with.
    """
    BaseTraining(config).run()
