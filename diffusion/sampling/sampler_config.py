"""Settings of sampling; by themselves, so that what never samples need not load the samplers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from runtime.config import setting
from runtime.errors import UserError

SamplerName = Literal["dpm++", "heun", "ddim", "ddpm"]
Spacing = Literal["log_snr", "trailing", "leading"]


@dataclass
class SamplerConfig:
    """Settings of sampling a diffusion model."""

    steps: int = setting(16, at_least=1, at_most=2**16)
    """Sampler steps; heun asks the model twice a step."""
    sampler: SamplerName = "dpm++"
    """dpm++ (second order, multistep), heun (second order, two calls a step), ddim, or ddpm
    (ancestral, with the learned variance where the model has one)."""
    spacing: Spacing = "log_snr"
    """Noise levels visited: uniform in log-SNR, or in time counted from the noisy end (trailing) or
    from the clean end (leading, as published)."""
    eta: float = setting(0.0, at_least=0, at_most=1)
    """Noise that each step of ddim (0 to 1) or dpm++ (0 or 1) adds: 0 none, 1 as much as ddpm."""
    guidance_scale: float = setting(1.0, at_least=0)
    """Classifier-free guidance: 1 is none, 0 samples without the portrait; other values need a
    model trained with condition drop."""
    guidance_interval: tuple[float, float] = setting((0.0, 1.0), at_least=0, at_most=1)
    """Share of the timesteps, from clean 0 to noise 1, in which guidance acts."""

    def check(self) -> None:
        """Refuse settings that can't be sampled with.

        Raises:
            UserError: names the setting.
        """
        if self.sampler == "dpm++" and self.eta not in (0, 1):
            raise UserError(f"eta is {self.eta}: dpm++ takes 0 or 1 (ddim takes any in 0..1)")
        if self.sampler == "heun" and self.eta != 0:
            raise UserError(f"eta is {self.eta}: heun adds no noise, its eta is 0")
        low, high = self.guidance_interval
        if low > high:
            raise UserError(
                f"guidance_interval is {low} {high}: give two shares, the smaller one first"
            )

    def guides(self, timestep: int, num_timesteps: int) -> bool:
        """Return whether guidance acts at a timestep."""
        low, high = self.guidance_interval
        return low <= (timestep + 0.5) / num_timesteps <= high


@dataclass
class SamplingConfig:
    """Settings of sampling the two diffusion models."""

    removed_settings: ClassVar[dict[str, str]] = {
        "guidance_scale": "write base.guidance_scale",
        "base_steps": "write base.steps",
        "base_eta": "write base.eta",
        "upsampler_steps": "write upsampler.steps",
        "upsampler_eta": "write upsampler.eta",
    }

    base: SamplerConfig = field(default_factory=SamplerConfig)
    """Of the base model."""
    upsampler: SamplerConfig = field(default_factory=SamplerConfig)
    """Of the upsampler."""
