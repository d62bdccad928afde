"""Sampling: from portrait features to triplanes, as diffusers pipelines.

Letters: B batch, P = 3 planes, C channels, H plane size, h size of low-resolution planes.

Every sample draws its noise from its own generator, so a sample does not depend on which others
share its batch. The noise is drawn on the CPU: the same seed means the same noise on any device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from diffusion.conditioning.features import PortraitFeatures
from diffusion.networks import MeanTriplane, TriplaneUNet, TriplaneUpsampler
from diffusion.sampling.schedules import check_inference_steps
from renderer.triplane import rollout, unroll
from runtime.seeds import generator

Denoiser = Callable[[Tensor, Tensor], Tensor]


def item_generators(seed: int | Sequence[int], batch: int) -> list[torch.Generator]:
    """One CPU generator for each sample: from a seed and its index, or from its own seed."""
    if isinstance(seed, int):
        return [generator(seed, "sample", index) for index in range(batch)]
    if len(seed) != batch:
        raise ValueError(f"{len(seed)} seeds for a batch of {batch}")
    return [generator(item, "sample") for item in seed]


def sample_rollouts(
    denoise: Denoiser,
    scheduler: DDIMScheduler | DDPMScheduler,
    shape: Sequence[int],
    generators: list[torch.Generator],
    num_inference_steps: int,
    eta: float,
    device: torch.device,
    progress_bar: Callable = iter,
) -> Tensor:
    """Runs a scheduler from noise to samples, in float32.

    Args:
        denoise: (x [B, C, H, W], timestep) → prediction with C channels, or 2C when the scheduler
            learns the variance.
        scheduler: DDIM or DDPM.
        shape: [B, C, H, W] of the samples.
        generators: one for each sample.
        num_inference_steps: divides the number of training timesteps.
        eta: of DDIM, 0 (deterministic) to 1 (as noisy as DDPM); DDPM ignores it.
        device: where it runs.
        progress_bar: wraps the timesteps.

    Returns:
        [B, C, H, W] float32 in [-1, 1].
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta is {eta}: it must lie in 0..1")
    check_inference_steps(scheduler.config["num_train_timesteps"], num_inference_steps)
    scheduler.set_timesteps(num_inference_steps)
    x = torch.stack([torch.randn(tuple(shape[1:]), generator=g) for g in generators]).to(device)
    noise: Any = generators  # diffusers takes one for each sample, though it says otherwise
    ddim = isinstance(scheduler, DDIMScheduler)
    # The noise that DDIM keeps must belong to x₀ after clipping, or large predictions would leave
    # the trajectory.
    extra: dict[str, Any] = {"eta": eta, "use_clipped_model_output": True} if ddim else {}
    for timestep in progress_bar(scheduler.timesteps):
        prediction = denoise(x, timestep.to(device)).float()
        if ddim:
            prediction = prediction[:, : shape[1]]
        step: Any = scheduler.step(prediction, timestep, x, generator=noise, **extra)
        x = step.prev_sample
    return x.clamp(-1, 1)


def guided(conditional: Tensor, unconditional: Tensor, scale: float, channels: int) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598) of the first C channels.

    Channels past those, the learned variance, stay the conditional ones.
    """
    mean, base = conditional[:, :channels], unconditional[:, :channels]
    return torch.cat((base + scale * (mean - base), conditional[:, channels:]), dim=1)


class _TriplanePipeline(DiffusionPipeline):
    """What both pipelines share: a model called `unet`, a scheduler and, where the model was
    trained on differences from it, the mean triplane."""

    _optional_components = ["mean"]
    mean: MeanTriplane | None
    unet: TriplaneUNet | TriplaneUpsampler
    scheduler: DDIMScheduler | DDPMScheduler
    progress_bar: Callable[..., Any]

    def __init__(
        self,
        unet: TriplaneUNet | TriplaneUpsampler,
        scheduler: DDIMScheduler | DDPMScheduler,
        mean: MeanTriplane | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, mean=mean)

    def _batch(self, features: PortraitFeatures | None, seed: int | Sequence[int]) -> int:
        if features is not None:
            return len(features)
        return 1 if isinstance(seed, int) else len(seed)

    def _sample(
        self,
        model: Callable[..., Tensor],
        features: PortraitFeatures | None,
        batch: int,
        seed: int | Sequence[int],
        guidance_scale: float,
        num_inference_steps: int,
        eta: float,
    ) -> Tensor:
        """Guided sampling: [B, P, C, H, H]."""
        channels, size = self.unet.plane_channels, self.unet.plane_size
        device, dtype = self.unet.device, self.unet.dtype
        features = features.to(device, dtype) if features is not None else None

        def denoise(x: Tensor, timestep: Tensor) -> Tensor:
            x = x.to(dtype)
            if features is None or guidance_scale == 0:
                return model(x, timestep, None)
            conditional = model(x, timestep, features)
            if guidance_scale == 1:
                return conditional
            return guided(conditional, model(x, timestep, None), guidance_scale, channels)

        image = sample_rollouts(
            denoise,
            self.scheduler,
            (batch, channels, size, 3 * size),
            item_generators(seed, batch),
            num_inference_steps,
            eta,
            device,
            self.progress_bar,
        )
        planes = unroll(image).contiguous()
        return planes if self.mean is None else self.mean.planes(planes)


class BaseTriplanePipeline(_TriplanePipeline):
    """Portrait features → low-resolution triplanes.

    Example:
        >>> pipeline = BaseTriplanePipeline.from_pretrained("runs/base/snapshots/model")
        >>> planes = pipeline(features, guidance_scale=1.3, seed=0)
    """

    unet: TriplaneUNet

    @torch.no_grad()
    def __call__(
        self,
        features: PortraitFeatures | None,
        *,
        guidance_scale: float = 1.3,
        num_inference_steps: int = 10,
        eta: float = 1.0,
        seed: int | Sequence[int] = 0,
    ) -> Tensor:
        """Samples one triplane for each portrait.

        Args:
            features: of B portraits; None samples without one, as many as there are seeds.
            guidance_scale: classifier-free guidance; 1 asks the conditional model alone, 0 the
                unconditional one.
            num_inference_steps: sampler steps; divides the training timesteps.
            eta: noise of DDIM's steps, 0 to 1.
            seed: one for the whole batch (each sample adds its index) or one for each sample.

        Returns:
            Planes [B, P, C, H, H] float32 in [-1, 1], on the model's device.

        Raises:
            ValueError: features of another VAE or image size, or settings out of range.
        """
        batch = self._batch(features, seed)
        guide = self.mean.guide() if self.mean is not None and self.unet.mean_guide else None

        def model(x: Tensor, timestep: Tensor, portraits: PortraitFeatures | None) -> Tensor:
            return self.unet(x, timestep, portraits, guide=guide)

        return self._sample(model, features, batch, seed, guidance_scale, num_inference_steps, eta)


class UpsampleTriplanePipeline(_TriplanePipeline):
    """Low-resolution triplanes and portrait features → full-resolution triplanes."""

    unet: TriplaneUpsampler

    @torch.no_grad()
    def __call__(
        self,
        low_res: Tensor,
        features: PortraitFeatures | None,
        *,
        guidance_scale: float = 1.0,
        num_inference_steps: int = 10,
        eta: float = 1.0,
        seed: int | Sequence[int] = 0,
    ) -> Tensor:
        """Samples one triplane for each low-resolution one.

        Args:
            low_res: planes [B, P, C, h, h] in [-1, 1].
            features: of the same B portraits; None samples without them.
            guidance_scale, num_inference_steps, eta, seed: as in `BaseTriplanePipeline`; guidance
                other than 1 needs a model trained with condition drop.

        Returns:
            Planes [B, P, C, H, H] float32 in [-1, 1], on the model's device.

        Raises:
            ValueError: planes or features of another size, or settings out of range.
        """
        batch = low_res.shape[0]
        if features is not None and len(features) != batch:
            raise ValueError(f"{batch} low-resolution triplanes but {len(features)} portraits")
        low_res = low_res.to(self.unet.device)
        if self.mean is not None:
            low_res = self.mean.differences(low_res)
        guide = rollout(low_res).to(self.unet.dtype)

        def model(x: Tensor, timestep: Tensor, portraits: PortraitFeatures | None) -> Tensor:
            return self.unet(x, timestep, guide, portraits)

        return self._sample(model, features, batch, seed, guidance_scale, num_inference_steps, eta)
