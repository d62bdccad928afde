"""Settings of stage 2, the fit of the subjects' triplanes; see :mod:`fitting.fit_triplanes`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fitting.subject_fit import FitSettings
from runtime.errors import UserError
from runtime.spread import SpreadSettings


@dataclass(kw_only=True)
class FitTriplanesConfig(SpreadSettings):
    """Fit one triplane per subject under the frozen decoder (stage 2)."""

    root: Path
    """Multi-view set to read."""
    decoder: Path
    """Stage-1 run folder whose decoder is used, frozen."""
    output_dir: Path
    """Run folder to write; the same command resumes it."""
    convention: str | None = None
    """Camera convention of a set without dataset.json, e.g. rodinhd."""
    identities: Literal["all", "train", "validation", "test"] = "all"
    """Which identities to fit. Held-out ones are fitted too: evaluation needs them."""
    txt_file: Path | None = None
    """Text file with one subject per line; replaces the identities."""
    start_idx: int = 0
    """First subject of the list to fit."""
    end_idx: int | None = None
    """Subject of the list to stop before; the list's end without it."""
    image_size: int | None = None
    """Resize pictures to this many pixels; their own size without it."""
    init: Literal["mean", "stage1", "random"] = "mean"
    """Start from the mean of the stage-1 triplanes, from the subject's own where there is one
    (else the mean), or from noise. Except from noise, the plane regularisers (fit.tv_weight and
    the like) hold the difference from the mean small and smooth, not the planes themselves."""
    iterations: int = 30000
    """Steps per subject."""
    plane_size: int | None = None
    """Texels along one side of a plane; those of stage 1 without it. A decoder fits planes of any
    size, and learns in less time on small ones."""
    coarse_size: int | None = None
    """Texels along one side of the planes that a fit begins with, fewer than it ends with: a coarse
    texel is seen by more rays. Full size from the start without it."""
    coarse_steps: int = 0
    """Steps with such planes; they are enlarged then."""
    fit: FitSettings = field(default_factory=FitSettings)
    """Settings shared with stage 1."""
    storage: Literal["float16", "uint8"] = "float16"
    """How triplanes are kept on disk; uint8 takes half the room, 8 bits a value with a scale for
    each channel. Quality is judged on what is kept."""
    seed: int = 0
    """Fixes every random number."""
    device: str = field(default="auto", metadata={"resumable": True})
    """auto, cpu, cuda or cuda:1."""
    save_every: int = field(default=2000, metadata={"resumable": True})
    """Steps between saves of an unfinished subject."""
    log_every: int = field(default=100, metadata={"resumable": True})
    """Steps between looks at the loss, which must be finite."""

    def check(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            UserError: names them.
        """
        if self.plane_size is not None and self.plane_size < 2:
            raise UserError(f"plane_size is {self.plane_size}; use 2 or more")
        if (self.coarse_size is None) != (self.coarse_steps == 0):
            raise UserError("coarse_size and coarse_steps belong together: set both or neither")
        if (self.coarse_size or 2) < 2 or not 0 <= self.coarse_steps < self.iterations:
            raise UserError(
                f"coarse_size must be 2 or more and coarse_steps fewer than the {self.iterations} "
                f"iterations; got {self.coarse_size} and {self.coarse_steps}"
            )
