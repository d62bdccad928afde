"""The training that base model and upsampler share, from data to saved model.

Letters: B batch, C channels, H plane size.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from diffusion.conditioning.feature_set import feature_shapes
from diffusion.conditioning.features import PortraitFeatures
from diffusion.data.pairs import DenoisingBatch, DenoisingDataset, PairedSet, describe_data
from diffusion.data.portraits import (
    PicturePortraits,
    StoredPortraits,
    join_portraits,
    open_portraits,
)
from diffusion.data.subjects import paired_subjects
from diffusion.networks import PlaneNormalization
from diffusion.networks.denoiser import TriplaneDenoiser
from diffusion.networks.pixel_aligned import WHOLE_BOX
from diffusion.sampling.model_files import open_model
from diffusion.sampling.pipelines import BaseTriplanePipeline, UpsampleTriplanePipeline
from diffusion.sampling.schedules import alphas_cumprod, make_scheduler
from diffusion.training.diffusion_config import DiffusionConfig
from diffusion.training.loop import TrainingLoop
from diffusion.training.memory import fitted_to_cards
from diffusion.training.objectives import DenoisingObjective, RegressionObjective
from diffusion.training.snapshot_pictures import PICTURES, comparison_sheet
from diffusion.training.trained_weights import take_weights
from diffusion.training.validation import (
    HeldOutViews,
    PlaneComparison,
    Validator,
    fixed_losses,
    quartile_means,
    sample_measures,
    some_of,
)
from renderer.fitted_set import FittedSet
from renderer.triplane import rollout, unroll
from runtime.config import check_settings
from runtime.errors import UserError
from runtime.files import write_json

WIDEST = 8.0
"""Estimates of normalised values are clipped to this many standard deviations."""
BATCH = 4
"""People sampled at once in a validation."""

Pipeline = BaseTriplanePipeline | UpsampleTriplanePipeline


class DiffusionTraining(ABC):
    """One training: its data, its model in the loop, and what is saved, drawn and validated.

    Attributes:
        config: the stage's settings.
        pairs: triplanes and portraits.
        subjects: whom it trains and validates on.
        dataset: the denoising problems.
        loop: the training loop with the model.
    """

    kind: type[Pipeline]
    dataset: DenoisingDataset

    def __init__(self, config: DiffusionConfig, stage: str, sizes: tuple[int, ...]) -> None:
        check_settings(config)
        self.config = config
        self.fitted = FittedSet.open(config.triplanes)
        self.views = config.open_views()
        self.portraits = open_portraits(
            config.features,
            config.vae,
            config.image_size,
            self.views,
            config.cache_gib / 2,
            self.fitted.folder / "shrunk",
            config.photographs,
        )
        stored = self.portraits.store if isinstance(self.portraits, StoredPortraits) else None
        self.subjects = paired_subjects(config, self.views, self.fitted, stored)
        self.pairs = PairedSet(
            self.fitted,
            self.portraits,
            self.subjects.train,
            sizes,
            config.normalization,
        )
        self.prepare()
        trained = self._trained()
        self.dataset = self.make_dataset()
        torch.manual_seed(config.seed)
        try:
            model = self.build_model()
        except ValueError as error:
            raise UserError(f"the settings under model don't fit the data: {error}") from error
        if trained is not None:
            take_weights(model, trained, config.start_from)
        plan = None
        if config.fit_memory:
            config, plan = fitted_to_cards(config, model, self.extra_gib)
            self.config = config
        if config.gradient_checkpointing:
            model.enable_gradient_checkpointing()
        self.loop = TrainingLoop(config, stage, model)
        if plan is not None:
            self.loop.run.log(plan)
        data = describe_data(self.pairs)
        made_of = ("decoder_hash", "vae_hash", "scaling_factor", "image_size", "channels")
        self.loop.run.depends_on({name: data[name] for name in made_of})
        self.on_device = self._copied()
        self.objective = self._objective()
        if isinstance(self.portraits, PicturePortraits):
            self.portraits.encoder.to(self.loop.device)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        self.loop.run.log(
            f"{len(self.subjects.train)} subjects ({len(self.subjects.validation)} to validate "
            f"on), {parameters / 1e6:.2f}M parameters"
        )

    # What a stage has to say.

    @property
    def extra_gib(self) -> float:
        """Memory for a sample beside the model's activations."""
        return 0.0

    @abstractmethod
    def build_model(self) -> TriplaneDenoiser:
        """The untrained model; ValueError when the settings make none."""

    @abstractmethod
    def make_dataset(self) -> DenoisingDataset:
        """The denoising problems, of training people."""

    @abstractmethod
    def predict(
        self, batch: DenoisingBatch, noisy: Tensor, features: PortraitFeatures, start: Tensor | None
    ) -> Tensor:
        """The model's output for noisy values [B, C, H, 3·H]."""

    @abstractmethod
    def start_of(self, batch: DenoisingBatch, features: PortraitFeatures) -> Tensor | None:
        """Values [B, C, H, 3·H] that the model completes; None where it makes them whole."""

    @abstractmethod
    def sample(self, names: Sequence[str], features: PortraitFeatures) -> Tensor:
        """Planes [B, P, C, H, H] sampled for people."""

    def prepare(self) -> None:  # noqa: B027
        """Return what else is to be opened before the model is built; nothing by default."""

    def weighed(
        self, losses: dict[str, Tensor], batch: DenoisingBatch, values: Tensor
    ) -> dict[str, Tensor]:
        """Losses per sample [B] with the stage's own, which look at predicted values."""
        return losses

    # What follows from it.

    def _trained(self) -> dict[str, Tensor] | None:
        """Weights that `start_from` names; its normalisation, which they rely on, is taken over."""
        if self.config.start_from is None:
            return None
        folder, about = open_model(self.config.start_from, self.kind)
        if about.get("decoder_hash") != self.fitted.manifest["decoder_hash"]:
            raise UserError(f"{folder} was trained on triplanes of another decoder")
        found = self.kind.from_pretrained(folder, local_files_only=True)
        self.pairs.normalization = found.normalization
        return found.unet.state_dict()

    def _copied(self) -> PlaneNormalization:
        """The normalisation on the training's device; the data keeps the original on the CPU."""
        original = copy.deepcopy(self.pairs.normalization)
        return torch.nn.Module.to(original, self.loop.device)

    @property
    def model_shapes(self) -> dict[str, Any]:
        """Return what the data asks of a model's constructor."""
        shapes = feature_shapes(self.portraits.manifest)
        window = self.portraits.manifest.get("portrait_window")
        shapes["portrait_window"] = tuple(window) if window else WHOLE_BOX
        return shapes | {"plane_channels": self.fitted.shape[1]}

    @property
    def regression(self) -> bool:
        return self.config.objective == "regression"

    @property
    def clip_range(self) -> float:
        """Clean planes lie in ±1; normalised values have no bound, so theirs is far away."""
        normalized = self.config.normalization != "none"
        return WIDEST * self.pairs.normalization.spread if normalized else 1.0

    def _objective(self) -> DenoisingObjective | RegressionObjective:
        if self.regression:
            return RegressionObjective()
        config: Any = self.config
        return DenoisingObjective(
            alphas_cumprod(config.schedule, config.num_timesteps),
            config.prediction_type,
            getattr(config, "learned_variance", False),
            config.snr_gamma,
            getattr(config, "vlb_weight", None),
            self.loop.device,
            self.clip_range,
            self.pairs.normalization.spread,
        )

    def scheduler(self) -> DDIMScheduler | None:
        """Return what the model's folder keeps of the noise levels."""
        if self.regression:
            return None
        config = self.config
        return make_scheduler(
            config.schedule, config.num_timesteps, config.prediction_type, self.clip_range
        )

    def parts(self) -> dict[str, Any]:
        """Components of the pipeline."""
        return {
            "unet": self.loop.bare_model,
            "scheduler": self.scheduler(),
            "normalization": self.on_device,
        }

    def pipeline(self) -> Any:
        """The trained model as inference has it."""
        pipeline = self.kind(**self.parts())
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def losses(self, batch: DenoisingBatch) -> dict[str, Tensor]:
        """Losses per sample of a micro-batch on the device."""
        features = self.portraits.features(batch.portrait)
        start = self.start_of(batch, features)
        target, noise = self.values_of(batch.planes), batch.noise
        if start is not None:
            target = self.on_device.residual(target, start)
        noisy = self.objective.noisy(target, noise, batch.timesteps)
        seen = self.objective.network_input(noisy, batch.timesteps)
        output = self.predict(batch, seen, features, start)
        losses = self.objective.losses(output, target, noise, noisy, batch.timesteps)
        channels = target.shape[1]
        values = self.objective.predicted_start(
            output[:, :channels].float(), noisy, batch.timesteps
        )
        if start is not None:
            values = self.on_device.completed(values, start)
        return self.weighed(losses, batch, values)

    def values_of(self, planes: Tensor) -> Tensor:
        """Planes [B, P, C, h, h] of any precision on the device → values, rolled out, float32."""
        return rollout(self.on_device.normalized(planes.float()))

    def planes_of(self, values: Tensor) -> Tensor:
        """Values on the device, rolled out → planes [B, P, C, H, H]."""
        return self.on_device.planes(unroll(values))

    def save_model(self, folder: Path) -> None:
        """Write what inference loads."""
        self.pipeline().save_pretrained(folder)
        write_json(
            folder / "training_data.json", describe_data(self.pairs) | {"step": self.loop.step}
        )

    def _features(self, names: Sequence[str]) -> PortraitFeatures:
        drawn = join_portraits([self.portraits.draw(name) for name in names])
        return self.portraits.features(drawn.to(self.loop.device))

    def sampled(self, names: Sequence[str], *how: Any) -> Tensor:
        """Planes [B, P, C, H, H] on the CPU, sampled for people a few at a time."""
        parts = [names[first : first + BATCH] for first in range(0, len(names), BATCH)]
        return torch.cat([self.sample(part, self._features(part), *how).cpu() for part in parts])

    def draw_samples(self, step: int) -> None:
        """A sheet of true and sampled people, held-out ones where there are any."""
        shown = (self.subjects.validation or self.subjects.train)[:PICTURES]
        pairs = [
            (self.pairs.true_planes(name), planes)
            for name, planes in zip(shown, self.sampled(shown), strict=True)
        ]
        sheet = comparison_sheet(pairs, self.fitted.decoder(), self.config.sample_pixels)
        self.loop.run.save_image(f"samples_{step:08d}.png", sheet)

    def validator(self) -> Validator | None:
        """Return what the loop asks between steps; None without anybody to validate on."""
        config = self.config.validation
        people = self.subjects.validation[: config.people]
        if not config.every or not people:
            if config.every:
                self.loop.run.log("there are no validation identities: nothing is validated")
            return None
        compare = PlaneComparison(map(self.pairs.true_planes, some_of(self.subjects.train)))
        views = None
        if config.views:
            decoder = self.fitted.decoder()
            views = HeldOutViews(self.views, decoder, config.views, config.pixels)
        truth = torch.stack([self.pairs.true_planes(name) for name in people])
        return Validator(
            config,
            lambda: self._validation_losses(people),
            lambda: self.measured(people, truth, compare, views),
            self.best_by,
        )

    best_by = "validation_plane_error"
    """The measure that decides the best snapshot."""

    def measured(
        self,
        people: Sequence[str],
        truth: Tensor,
        compare: PlaneComparison,
        views: HeldOutViews | None,
    ) -> dict[str, float]:
        """Measures of samples of people against their true planes [B, P, C, H, H]."""
        return sample_measures(people, self.sampled(people), truth, compare, views)

    def _validation_losses(self, people: Sequence[str]) -> dict[str, float]:
        problems = self.dataset.validation_problems(people, self.config.validation.draws)
        found = fixed_losses(problems, lambda b: self.losses(b.to(self.loop.device))["mse"])
        return quartile_means(*found, self.dataset.num_timesteps)

    def run(self) -> None:
        """Train to the end."""
        join: Any = type(self.dataset[0]).join
        self.loop.train(
            self.dataset, join, self.losses, self.save_model, self.draw_samples, self.validator()
        )
