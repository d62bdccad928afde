"""Settings that the training stages share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtime.config import setting
from runtime.errors import UserError


@dataclass(kw_only=True)
class LoopConfig:
    """Settings that every training stage has."""

    output_dir: Path
    """Run folder; the same command goes on where a stopped run was last saved."""
    device: str = setting("auto", resumable=True)
    """Device: auto, cpu, cuda or cuda:N."""
    seed: int = 0
    """Seed of all randomness."""
    steps: int = setting(100_000, resumable=True, at_least=1, at_most=10**9)
    """Optimiser steps in all; a finished run goes on when this is raised."""
    minutes: float = setting(0.0, resumable=True, at_least=0)
    """Minutes after which this call saves and stops, wherever it is; the same command goes on. 0
    sets no end."""
    batch_size: int = setting(8, at_least=1, at_most=2**16)
    """Samples per optimiser step, over all processes and micro-batches."""
    gradient_accumulation: int = setting(1, resumable=True, at_least=1, at_most=2**16)
    """Micro-batches that one process runs per optimiser step; it changes memory, not the result."""
    learning_rate: float = setting(1e-4, above=0)
    """Learning rate of AdamW after warm-up."""
    warmup_steps: int = setting(0, at_least=0, at_most=10**9)
    """Steps over which the learning rate rises from 0."""
    decay: Literal["constant", "cosine"] = "constant"
    """Learning rate after warm-up: constant, or a cosine down to 0 at the last step."""
    weight_decay: float = setting(0.0, at_least=0)
    """Weight decay of AdamW."""
    adam_betas: tuple[float, float] = (0.9, 0.999)
    """Momentum and second-moment decay of AdamW."""
    clip_gradient: float = setting(1.0, at_least=0)
    """Largest norm of the gradient; 0 leaves it as it is."""
    ema_decay: float = setting(0.9999, at_least=0, below=1)
    """Decay per step of the averaged weights that are saved; 0 saves the weights themselves."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Precision of the forward pass (accelerate)."""
    ema_on_cpu: bool = setting(False, resumable=True)
    """Keep the averaged weights in the CPU's memory: 4 bytes a parameter less on the card."""
    channels_last: bool = setting(False, resumable=True)
    """Lay feature maps out channels last, as tensor cores want them."""
    compile: bool = setting(False, resumable=True)
    """Compile the model with torch.compile: minutes at the start, faster steps on a GPU."""
    trackers: tuple[str, ...] = setting((), resumable=True)
    """Any of tensorboard, wandb; stats.jsonl is always written."""
    workers: int = setting(0, resumable=True, at_least=0, at_most=1024)
    """Processes per process that load data; 0 loads in the loop."""
    log_every: int = setting(50, resumable=True, at_least=1)
    """Steps between two lines of stats.jsonl (each is the mean since the last)."""
    save_every: int = setting(1000, resumable=True, at_least=1)
    """Steps between two saves of the training state and the model."""
    sample_every: int = setting(1000, resumable=True, at_least=0)
    """Steps between two sample pictures; 0 draws none."""


def learning_rate_at(config: LoopConfig, step: int) -> float:
    """Learning rate of a step (counted from 0)."""
    rate = config.learning_rate
    if step < config.warmup_steps:
        return rate * (step + 1) / config.warmup_steps
    if config.decay == "constant":
        return rate
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def check_batch(config: LoopConfig, processes: int) -> None:
    """Refuse a batch that can't be split evenly over processes and micro-batches."""
    if config.batch_size % (processes * config.gradient_accumulation):
        raise UserError(
            f"batch_size {config.batch_size} can't be split evenly over {processes} processes "
            f"with {config.gradient_accumulation} micro-batches each"
        )
