"""Settings of stage 2, the fit of the subjects' triplanes; see :mod:`fitting.fit_triplanes`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from captures.selection import SubjectSelection
from fitting.subject_fit import FitSettings
from runtime.config import own_first, setting
from runtime.errors import UserError
from runtime.launch import process_count
from runtime.spread import SpreadSettings

MOST_AT_ONCE = 8


@own_first
@dataclass(kw_only=True)
class FitTriplanesConfig(SpreadSettings, SubjectSelection):
    """Fit one triplane per subject under the frozen decoder (stage 2)."""

    root: Path
    """Multi-view set to read."""
    decoder: Path
    """Stage-1 run folder whose decoder is used, frozen."""
    output_dir: Path
    """Run folder to write; the same command resumes it."""
    identities: Literal["all", "train", "validation", "test"] = "all"
    """Which identities to fit, unless a txt_file names them. Held-out ones are fitted too:
    evaluation needs them."""
    image_size: int | None = setting(None, at_least=1, at_most=8192)
    """Resize pictures to this many pixels; their own size without it."""
    init: Literal["mean", "stage1", "random"] = "mean"
    """Start from the mean of the stage-1 triplanes, from the subject's own where there is one
    (else the mean), or from noise. Except from noise, the plane regularisers (fit.tv_weight and
    the like) hold the difference from the mean small and smooth, not the planes themselves."""
    iterations: int = setting(30000, at_least=1, at_most=10**9)
    """Steps per subject."""
    plane_size: int | None = setting(None, at_least=2, at_most=8192)
    """Texels along one side of a plane; those of stage 1 without it. A decoder fits planes of any
    size, and learns in less time on small ones."""
    coarse_size: int | None = setting(None, at_least=2, at_most=8192)
    """Texels along one side of the planes that a fit begins with, fewer than it ends with: a coarse
    texel is seen by more rays. Full size from the start without it."""
    coarse_steps: int = setting(0, at_least=0, at_most=10**9)
    """Steps with such planes; they are enlarged then."""
    fit: FitSettings = field(default_factory=FitSettings)
    """Settings shared with stage 1."""
    storage: Literal["float16", "uint8"] = "float16"
    """How triplanes are kept on disk; uint8 takes half the room, 8 bits a value with a scale for
    each channel. Quality is judged on what is kept."""
    seed: int = 0
    """Fixes every random number."""
    device: str = setting("auto", resumable=True)
    """auto, cpu, cuda or cuda:1."""
    save_every: int = setting(2000, resumable=True, at_least=1)
    """Steps between saves of an unfinished subject."""
    log_every: int = setting(100, resumable=True, at_least=1)
    """Steps between looks at the loss, which must be finite."""
    subjects_at_once: int = setting(0, resumable=True, at_least=0, at_most=1024)
    """Subjects worked on at once, each by a process of its own: on this machine, whose GPUs they
    share; with Ray on every GPU, or on every machine where there are none. 0 takes one on a CPU and
    what fits on a GPU, which one fit leaves idle between its many small steps: 8 at most."""

    def check(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            UserError: names them.
        """
        super().check()
        if (self.coarse_size is None) != (self.coarse_steps == 0):
            raise UserError("coarse_size and coarse_steps belong together: set both or neither")
        if self.coarse_steps >= self.iterations:
            raise UserError(
                f"coarse_steps is {self.coarse_steps}, which leaves none of the {self.iterations} "
                "iterations"
            )


def fits_at_once(values: int, free_bytes: int, cores: int) -> int:
    """How many fits a GPU shall work on at once.

    Args:
        values: of one triplane.
        free_bytes: of the GPU's memory.
        cores: of the machine.
    """
    # Planes, gradient, Adam's two moments, the next values, the start, a half copy and a spare one;
    # then rays, samples and what PyTorch takes for itself.
    each = 4 * values * 8 + 2 * 2**30
    return max(1, min(MOST_AT_ONCE, free_bytes // each, cores // 2))


def most_at_once(values: int, device: torch.device) -> int:
    """How many subjects to fit at once where the settings leave it open.

    Args:
        values: of one triplane.
        device: where they are fitted.
    """
    if device.type != "cuda" or process_count() > 1:
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    return fits_at_once(values, free, os.cpu_count() or 1)
