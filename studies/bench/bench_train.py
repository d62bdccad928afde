"""``triavatar bench train`` and ``bench train-upsampler``: how fast models are fed and learn.

The training is that of `train-base` or `train-upsampler` with the same settings, for a few steps.
CPU seconds count the loading processes too: they say what a sample costs whatever else the machine
does.
"""

from __future__ import annotations

import itertools
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from diffusion.training.diffusion_training import DiffusionTraining
from diffusion.training.feeding import ahead, micro_batches
from diffusion.training.loss_window import LossWindow
from diffusion.training.train_base import BaseTraining, TrainBaseConfig
from diffusion.training.train_upsampler import TrainUpsamplerConfig, UpsamplerTraining
from runtime.config import setting
from runtime.files import write_json, write_text
from studies.bench.cards import modelled_table, published_memory
from studies.bench.timing import machine, peak_memory, synchronize


@dataclass(kw_only=True)
class BenchSettings:
    """Settings that both measurements have beside their training's."""

    measured_steps: int = setting(4, at_least=1, at_most=10**6)
    """Optimiser steps that are timed; as many go before them."""
    modelled: bool = True
    """Add what the published trainings would take on known cards (modelled)."""
    utilisation: float = setting(0.3, above=0, at_most=1)
    """Share of a card's peak rate that the modelled training reaches."""


@dataclass(kw_only=True)
class BenchTrainConfig(BenchSettings, TrainBaseConfig):
    """Measure feeding and training of the base model; settings are those of train-base."""


@dataclass(kw_only=True)
class BenchUpsamplerConfig(BenchSettings, TrainUpsamplerConfig):
    """Measure feeding and training of the upsampler; settings are those of train-upsampler."""


@dataclass(frozen=True)
class Pace:
    """What a number of samples took."""

    samples: int
    seconds: float
    cpu_seconds: float

    def row(self) -> dict[str, float]:
        return {
            "samples_per_second": self.samples / self.seconds,
            "cpu_seconds_per_sample": self.cpu_seconds / self.samples,
        }


def cpu_seconds() -> float:
    """CPU time of this process and of those it has seen end."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


class Benchmark:
    """Times one training's parts.

    Args:
        training: what is timed.
        config: its settings, and how much of it is measured.
    """

    def __init__(
        self, training: DiffusionTraining, config: BenchTrainConfig | BenchUpsamplerConfig
    ) -> None:
        self.training = training
        self.config: Any = training.config  # as it was fitted to the cards
        self.loop = self.training.loop
        self.share = config.batch_size // self.loop.accelerator.num_processes
        self.join: Any = type(self.training.dataset[0]).join

    def batches(self) -> Iterator[Any]:
        """Micro-batches on the device, as the training gets them."""
        loop = self.loop
        loader = micro_batches(
            self.config, loop.accelerator, loop.step, self.training.dataset, self.join
        )
        return ahead(loader, loop.device)

    def timed(self, work: Callable[[int], None]) -> Pace:
        """Time `work` on measured_steps steps, after as many that don't count."""
        steps = self.config.measured_steps
        work(steps)
        synchronize(self.loop.device)
        cpu, clock = cpu_seconds(), time.perf_counter()
        work(steps)
        synchronize(self.loop.device)
        return Pace(steps * self.share, time.perf_counter() - clock, cpu_seconds() - cpu)

    def load(self, steps: int) -> None:
        """Load and copy to the device, no more."""
        source = self.batches()
        for _ in range(steps * self.config.gradient_accumulation):
            next(source)
        # Loading processes count once they have ended.
        del source

    def learn(self, source: Iterator[Any], steps: int) -> None:
        """Optimise on batches of a source."""
        self.loop.model.train()
        window = LossWindow()
        for _ in range(steps):
            self.loop._optimise(source, self.training.losses, window)

    def learn_and_load(self, steps: int) -> None:
        """The training itself."""
        source = self.batches()
        self.learn(source, steps)
        del source


def bench_train(config: BenchTrainConfig) -> None:
    """Measure the base model's training, print and write bench.json and bench.md.

    Raises:
        UserError: on settings or data that can't be trained with.
    """
    measure(Benchmark(BaseTraining(config), config), config)


def bench_upsampler(config: BenchUpsamplerConfig) -> None:
    """As `bench_train`, of the upsampler's training with its rendering loss."""
    measure(Benchmark(UpsamplerTraining(config), config), config)


def measure(bench: Benchmark, config: BenchTrainConfig | BenchUpsamplerConfig) -> None:
    """Measure a training, print and write bench.json and bench.md to the output folder."""
    batch = next(bench.batches())
    paces = {
        "loader alone": bench.timed(bench.load),
        "model alone": bench.timed(lambda n: bench.learn(itertools.repeat(batch), n)),
        "both": bench.timed(bench.learn_and_load),
    }
    device = bench.loop.device
    peak = peak_memory(lambda: bench.learn(itertools.repeat(batch), 1), device)
    result = {
        "machine": machine(device),
        "people": len(bench.training.pairs),
        "parameters": sum(p.numel() for p in bench.loop.bare_model.parameters()),
        "peak_mib": peak,
        **{name: pace.row() for name, pace in paces.items()},
    }
    text = measured_table(result, paces)
    if config.modelled:
        text += "\n" + modelled_table(published_memory(), config.utilisation)
    write_json(config.output_dir / "bench.json", result)
    write_text(config.output_dir / "bench.md", text)
    print(text)


def measured_table(result: dict[str, Any], paces: dict[str, Pace]) -> str:
    """Markdown of what was measured."""
    about = result["machine"]
    peak = "not known here" if result["peak_mib"] is None else f"{result['peak_mib']:.0f} MiB"
    lines = [
        f"{about['device']} · {about['date']} · `{about['command']}`",
        "",
        f"{result['people']} people, {result['parameters'] / 1e6:.2f}M parameters; memory that a "
        f"step adds at its peak: {peak}",
        "",
        "| | samples/s | CPU seconds a sample |",
        "|---|---:|---:|",
    ]
    for name, pace in paces.items():
        row = pace.row()
        lines.append(
            f"| {name} | {row['samples_per_second']:.3g} | {row['cpu_seconds_per_sample']:.4f} |"
        )
    return "\n".join(lines) + "\n"
