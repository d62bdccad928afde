"""Losses gathered over the steps between two lines of the log."""

from __future__ import annotations

import math

import torch
from accelerate import Accelerator
from torch import Tensor


class LossWindow:
    """Sums of losses by name, since the last line of the log."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps = 0

    def add(self, losses: dict[str, Tensor], share: float) -> None:
        """Add a micro-batch's losses per sample [b], which is this share of a step."""
        for name, value in losses.items():
            part = value.detach().mean() * share
            self.sums[name] = self.sums.get(name, torch.zeros_like(part)) + part

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the means over steps and processes, and begin anew."""
        names = sorted(self.sums)
        values = torch.stack([self.sums[name].float() for name in names]) / self.steps
        values = torch.as_tensor(accelerator.reduce(values, reduction="mean"))
        self.sums, self.steps = {}, 0
        return dict(zip(names, values.tolist(), strict=True))


def all_finite(means: dict[str, float]) -> bool:
    """Whether no loss is NaN or infinite."""
    return all(math.isfinite(value) for value in means.values())
