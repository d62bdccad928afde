"""``triavatar bench samplers``: how much of the spread each way of sampling keeps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from diffusion.sampling.schedules import ScheduleName, alphas_cumprod
from diffusion.sampling.solvers import SamplerConfig, kept_deviation
from runtime.files import write_text

WAYS = {
    "default": SamplerConfig(),
    "dpm++, eta 1": SamplerConfig(eta=1.0),
    "dpm++, trailing": SamplerConfig(spacing="trailing"),
    "heun (two calls a step)": SamplerConfig(sampler="heun"),
    "ddim": SamplerConfig(sampler="ddim"),
    "ddim, eta 1": SamplerConfig(sampler="ddim", eta=1.0),
    "ddpm": SamplerConfig(sampler="ddpm"),
    "ddim, eta 1, leading (as published)": SamplerConfig(
        sampler="ddim", spacing="leading", eta=1.0
    ),
}
"""What is compared."""


@dataclass
class BenchSamplersConfig:
    """Share of the standard deviation that samplers keep where the exact denoiser is known."""

    schedule: ScheduleName = "cosine_light"
    """Noise schedule."""
    num_timesteps: int = 1000
    """Timesteps of the noise schedule."""
    deviations: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Standard deviations of the data; normalised planes have 0.5."""
    calls: tuple[int, ...] = (10, 16, 20)
    """Calls of the model a sample."""
    output: Path | None = None
    """Markdown file; it is printed without."""


def bench_samplers(config: BenchSamplersConfig) -> None:
    """Print the table.

    Raises:
        UserError: more calls than timesteps.
    """
    alphas = alphas_cumprod(config.schedule, config.num_timesteps)
    columns = [f"{std:g}, {calls} calls" for std in config.deviations for calls in config.calls]
    lines = [
        f"Share of the standard deviation kept with an exact denoiser, schedule {config.schedule}, "
        f"{config.num_timesteps} timesteps; columns: deviation of the data, calls of the model.",
        "",
        "| sampler | " + " | ".join(columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for name, way in WAYS.items():
        cells = []
        for std in config.deviations:
            for calls in config.calls:
                steps = (calls + 1) // 2 if way.sampler == "heun" else calls
                cells.append(f"{kept_deviation(alphas, replace(way, steps=steps), std):.3f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    text = "\n".join(lines) + "\n"
    if config.output is None:
        print(text)
    else:
        write_text(config.output, text)
