"""Settings that the training stages share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from runtime.errors import UserError

RESUMABLE = {"resumable": True}


@dataclass(kw_only=True)
class LoopConfig:
    """Settings that every training stage has."""

    output_dir: Path
    """Run folder; the same command goes on where a stopped run was last saved."""
    device: str = field(default="auto", metadata=RESUMABLE)
    """Device: auto, cpu, cuda or cuda:N."""
    seed: int = 0
    """Seed of all randomness."""
    steps: int = field(default=100_000, metadata=RESUMABLE)
    """Optimiser steps in all; a finished run goes on when this is raised."""
    batch_size: int = 8
    """Samples per optimiser step, over all processes and micro-batches."""
    gradient_accumulation: int = 1
    """Micro-batches that one process runs per optimiser step."""
    learning_rate: float = 1e-4
    """Learning rate of AdamW after warm-up."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises from 0."""
    decay: Literal["constant", "cosine"] = "constant"
    """Learning rate after warm-up: constant, or a cosine down to 0 at the last step."""
    weight_decay: float = 0.0
    """Weight decay of AdamW."""
    adam_betas: tuple[float, float] = (0.9, 0.999)
    """Momentum and second-moment decay of AdamW."""
    clip_gradient: float = 1.0
    """Largest norm of the gradient; 0 leaves it as it is."""
    ema_decay: float = 0.9999
    """Decay per step of the averaged weights that are saved; 0 saves the weights themselves."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Precision of the forward pass (accelerate)."""
    trackers: tuple[str, ...] = field(default=(), metadata=RESUMABLE)
    """Any of tensorboard, wandb; stats.jsonl is always written."""
    workers: int = field(default=0, metadata=RESUMABLE)
    """Processes per process that load data; 0 loads in the loop."""
    log_every: int = field(default=50, metadata=RESUMABLE)
    """Steps between two lines of stats.jsonl (each is the mean since the last)."""
    save_every: int = field(default=1000, metadata=RESUMABLE)
    """Steps between two saves of the training state and the model."""
    sample_every: int = field(default=1000, metadata=RESUMABLE)
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


def check_loop_config(config: LoopConfig) -> None:
    """Refuses settings that can't be trained with, by name."""
    positive = ("batch_size", "gradient_accumulation", "learning_rate", "log_every", "save_every")
    for name in (*positive, "steps"):
        if not getattr(config, name) > 0:
            raise UserError(f"{name} is {getattr(config, name)}: it must be more than 0")
    for name in ("warmup_steps", "weight_decay", "clip_gradient", "workers", "sample_every"):
        if getattr(config, name) < 0:
            raise UserError(f"{name} is {getattr(config, name)}: it can't be negative")
    if not 0 <= config.ema_decay < 1:
        raise UserError(f"ema_decay is {config.ema_decay}: it must lie in 0..1, below 1")
