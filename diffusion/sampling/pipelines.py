"""Sampling: from portrait features to triplanes, as diffusers pipelines.

Letters: B batch, P = 3 planes, C channels, H plane size, h size of low-resolution planes.

The networks work on normalised values (`PlaneNormalization`), or on what those differ by from a
start: the portrait's expected triplane for the base model, the enlarged small planes for the
upsampler. A pipeline without a scheduler holds a regression: one pass gives what is to be expected.

Every sample draws its noise from its own generator, so a sample does not depend on which others
share its batch. The noise is drawn on the CPU: the same seed means the same noise on any device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from diffusion.conditioning.features import PortraitFeatures
from diffusion.networks import (
    LinearExpectation,
    PlaneNormalization,
    TriplaneUNet,
    TriplaneUpsampler,
)
from diffusion.networks.upsampler import upsample_rollout
from diffusion.sampling.predictions import network_input, predicted_start
from diffusion.sampling.solvers import SamplerConfig, Solver, draw_noise
from renderer.triplane import rollout, unroll
from runtime.seeds import generator

Enlarge = Literal["model", "resizing"]
Network = Callable[[Tensor, Tensor, PortraitFeatures | None], Tensor]
"""(x_t [B, C, H, 3·H], timestep, portraits or None) → prediction [B, C or 2·C, H, 3·H]."""


def item_generators(seed: int | Sequence[int], batch: int) -> list[torch.Generator]:
    """One CPU generator for each sample: from a seed and its index, or from its own seed."""
    if isinstance(seed, int):
        return [generator(seed, "sample", index) for index in range(batch)]
    if len(seed) != batch:
        raise ValueError(f"{len(seed)} seeds for a batch of {batch}")
    return [generator(item, "sample") for item in seed]


def guided(conditional: Tensor, unconditional: Tensor, scale: float, channels: int) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598) of the first C channels.

    Channels past those, the learned variance, stay the conditional ones.
    """
    mean, base = conditional[:, :channels], unconditional[:, :channels]
    return torch.cat((base + scale * (mean - base), conditional[:, channels:]), dim=1)


class _TriplanePipeline(DiffusionPipeline):
    """The base of both pipelines: a model called `unet`, its normalisation, and a scheduler unless
    the model is a regression."""

    _optional_components = ["scheduler", "expectation"]
    unet: TriplaneUNet | TriplaneUpsampler
    scheduler: DDIMScheduler | None
    normalization: PlaneNormalization
    progress_bar: Callable[..., Any]

    def _batch(self, features: PortraitFeatures | None, seed: int | Sequence[int]) -> int:
        if features is not None:
            return len(features)
        return 1 if isinstance(seed, int) else len(seed)

    def _portraits(self, features: PortraitFeatures | None) -> PortraitFeatures | None:
        return features.to(self.unet.device, self.unet.dtype) if features is not None else None

    def _sample(
        self,
        network: Network,
        features: PortraitFeatures | None,
        batch: int,
        seed: int | Sequence[int],
        sampler: SamplerConfig,
    ) -> Tensor:
        """Return what the network was trained to make, rolled out [B, C, H, 3·H] float32."""
        channels, size = self.unet.plane_channels, self.unet.plane_size
        shape = (batch, channels, size, 3 * size)
        device, dtype, scale = self.unet.device, self.unet.dtype, sampler.guidance_scale
        scheduler = self.scheduler
        if scheduler is None:
            nothing = torch.zeros(shape, device=device, dtype=dtype)
            output = network(nothing, torch.tensor(0, device=device), features)
            return output[:, :channels].float()
        total = len(scheduler.alphas_cumprod)

        kind, limit = scheduler.config["prediction_type"], scheduler.config["clip_sample_range"]

        def denoise(x: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor | None]:
            bar = scheduler.alphas_cumprod[timestep.cpu()].double()
            levels = (bar.sqrt(), (1 - bar).sqrt(), float(self.normalization.spread))
            cast, at = network_input(kind, x, *levels).to(dtype), timestep.to(device)
            if features is None or scale == 0:
                output = network(cast, at, None)
            else:
                output = network(cast, at, features)
                if scale != 1 and sampler.guides(int(timestep), total):
                    output = guided(output, network(cast, at, None), scale, channels)
            output = output.float()
            start = predicted_start(kind, output[:, :channels], x, *levels).clamp(-limit, limit)
            return start, output[:, channels:] if output.shape[1] > channels else None

        learned = bool(self.unet.config.get("learned_variance", False))
        solver = Solver(scheduler.alphas_cumprod, sampler, learned)
        generators = item_generators(seed, batch)
        noise = draw_noise(shape, generators).to(device)
        return solver.sample(denoise, noise, generators, self.progress_bar)


class BaseTriplanePipeline(_TriplanePipeline):
    """Portrait features → low-resolution triplanes.

    Args:
        unet: the denoiser, or the regression.
        scheduler: noise levels of the training; None for a regression.
        normalization: of the planes.
        expectation: a regression, trained or linear; the model makes what its triplane lacks.

    Example:
        >>> pipeline = BaseTriplanePipeline.from_pretrained("runs/base/snapshots/model")
        >>> planes = pipeline(features, sampler=SamplerConfig(steps=16), seed=0)
    """

    unet: TriplaneUNet
    expectation: TriplaneUNet | LinearExpectation | None

    def __init__(
        self,
        unet: TriplaneUNet,
        scheduler: DDIMScheduler | None,
        normalization: PlaneNormalization,
        expectation: TriplaneUNet | LinearExpectation | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            unet=unet, scheduler=scheduler, normalization=normalization, expectation=expectation
        )

    @torch.no_grad()
    def expected_values(self, features: PortraitFeatures | None, batch: int) -> Tensor | None:
        """The start: values rolled out [B, C, H, 3·H] to expect of portraits; None without one."""
        if self.expectation is None:
            return None
        return expected_values(self.expectation, self.normalization, features, batch)

    @torch.no_grad()
    def __call__(
        self,
        features: PortraitFeatures | None,
        *,
        sampler: SamplerConfig | None = None,
        seed: int | Sequence[int] = 0,
    ) -> Tensor:
        """Sample one triplane for each portrait; of a regression, give the one to expect.

        Args:
            features: of B portraits; None samples without one, as many as there are seeds.
            sampler: steps, solver, guidance; the defaults without.
            seed: one for the whole batch (each sample adds its index) or one for each sample.

        Returns:
            Planes [B, P, C, H, H] float32 in [-1, 1], on the model's device.

        Raises:
            ValueError: features of another VAE or image size.
            UserError: sampler settings out of range.
        """
        batch = self._batch(features, seed)
        features = self._portraits(features)
        start = self.expected_values(features, batch)
        guide = base_guide(self.unet, self.normalization, start)

        def network(x: Tensor, timestep: Tensor, portraits: PortraitFeatures | None) -> Tensor:
            return self.unet(x, timestep, portraits, guide=guide)

        values = self._sample(network, features, batch, seed, sampler or SamplerConfig())
        if start is not None:
            values = self.normalization.completed(values, start)
        return self.normalization.planes(unroll(values).contiguous())


def base_guide(
    unet: TriplaneUNet, normalization: PlaneNormalization, start: Tensor | None
) -> Tensor | None:
    """Planes that a guided base model sees beside the noisy ones: its start, or the mean."""
    if not unet.config["guided"]:
        return None
    return start if start is not None else normalization.guide().to(unet.device)


def expected_values(
    regression: TriplaneUNet | LinearExpectation,
    normalization: PlaneNormalization,
    features: PortraitFeatures | None,
    batch: int,
) -> Tensor:
    """Values [B, C, H, 3·H] float32 that a regression expects of B portraits."""
    if isinstance(regression, LinearExpectation):
        if features is None:
            return regression.mean.expand(batch, -1, -1, -1).float()
        return regression(features).float()
    unet = regression
    size = unet.plane_size
    nothing = torch.zeros(
        batch, unet.plane_channels, size, 3 * size, device=unet.device, dtype=unet.dtype
    )
    guide = base_guide(unet, normalization, None)
    return unet(nothing, 0, features, guide=guide).float()


class UpsampleTriplanePipeline(_TriplanePipeline):
    """Low-resolution triplanes and portrait features → full-resolution triplanes.

    Args:
        unet: the denoiser, or the regression.
        scheduler: noise levels of the training; None for a regression.
        normalization: of the planes.
        enlarge: what came closer to held-out people in the training's validation: the model, or
            plain bicubic resizing of the small planes.
    """

    unet: TriplaneUpsampler

    def __init__(
        self,
        unet: TriplaneUpsampler,
        scheduler: DDIMScheduler | None,
        normalization: PlaneNormalization,
        enlarge: Enlarge = "model",
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, normalization=normalization)
        self.register_to_config(enlarge=enlarge)

    @torch.no_grad()
    def __call__(
        self,
        low_res: Tensor,
        features: PortraitFeatures | None,
        *,
        sampler: SamplerConfig | None = None,
        seed: int | Sequence[int] = 0,
        enlarge: Literal["auto"] | Enlarge = "auto",
    ) -> Tensor:
        """Sample one triplane for each low-resolution one.

        Args:
            low_res: planes [B, P, C, h, h] in [-1, 1].
            features: of the same B portraits; None samples without them.
            sampler, seed: as in `BaseTriplanePipeline`; guidance other than 1 needs a model trained
                with condition drop.
            enlarge: by the model, by plain resizing, or by what the validation of the training
                found better (auto).

        Returns:
            Planes [B, P, C, H, H] float32 in [-1, 1], on the model's device.

        Raises:
            ValueError: planes or features of another size.
            UserError: sampler settings out of range.
        """
        batch = low_res.shape[0]
        if features is not None and len(features) != batch:
            raise ValueError(f"{batch} low-resolution triplanes but {len(features)} portraits")
        small = rollout(self.normalization.normalized(low_res.to(self.unet.device)))
        if (self.config["enlarge"] if enlarge == "auto" else enlarge) == "resizing":
            values = upsample_rollout(small, self.unet.plane_size)
            return self.normalization.planes(unroll(values).contiguous())
        guide = small.to(self.unet.dtype)

        def network(x: Tensor, timestep: Tensor, portraits: PortraitFeatures | None) -> Tensor:
            return self.unet(x, timestep, guide, portraits)

        sampler = sampler or SamplerConfig()
        values = self._sample(network, self._portraits(features), batch, seed, sampler)
        if self.unet.config["residual"]:
            start = upsample_rollout(small, self.unet.plane_size)
            values = self.normalization.completed(values, start)
        return self.normalization.planes(unroll(values).contiguous())
