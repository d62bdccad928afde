"""Settings of ``triavatar studio render``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtime.config import own_first, setting
from runtime.errors import UserError
from runtime.spread import SpreadSettings
from studio.drawing.raster import MOST_SAMPLES


@own_first
@dataclass(kw_only=True)
class StudioRenderConfig(SpreadSettings):
    """Render seeded random subjects from cameras all round the head."""

    output_dir: Path = Path("data/studio")
    """Folder of the set; finished subjects in it are kept."""
    assets: Path | None = None
    """Folder with the clones makehuman/ and makehuman-assets/; default: $TRIAVATAR_ASSETS."""
    n_subjects: int = setting(64, at_least=1, at_most=10**9)
    """Number of subjects in the set."""
    n_views: int = setting(300, at_least=1, at_most=10**6)
    """Views of each subject; view 0 is the frontal portrait."""
    size: int = setting(512, at_least=1, at_most=8192)
    """Picture width and height in pixels."""
    supersampling: int = setting(2, at_least=1, at_most=MOST_SAMPLES)
    """Samples a side of every pixel, at most 8."""
    seed: int = 0
    """Same seed, same pictures."""
    test_subjects: int | None = None
    """How many subjects, the first ones, are held out as test identities; they stay the same when
    the set grows. Default: one in sixteen, at least 1, at most 64; none of one subject."""
    validation_subjects: int | None = None
    """How many subjects, those after the test identities, are held out for validation. Default:
    half as many as for testing, none of fewer than 20 subjects."""
    test_view_every: int = setting(6, at_least=0)
    """Every n-th view (never view 0) is held out for testing; 0 holds out none."""
    variants: int = setting(1, at_least=1, at_most=1000)
    """Renders of each subject; the first rests and looks ahead, the others get random expressions,
    head rotations and gazes, and the same cameras."""
    portraits: int = setting(0, at_least=0, at_most=999)
    """Portraits of each subject as photographs are, beside the views: random light, lens, turn,
    expression, noise and cut-out (docs/formats.md describes them). The same command with a larger
    number adds some."""
    portrait_size: int = setting(0, at_least=0, at_most=8192)
    """Their width and height in pixels; 0 takes that of the views."""
    maps: tuple[Literal["depth", "normal", "label"], ...] = ()
    """Maps to write beside every picture (data/README.md describes the files)."""
    low_elevation: float = setting(-35.0, at_least=-85, at_most=85)
    """Lowest camera, degrees above the horizon."""
    high_elevation: float = setting(60.0, at_least=-85, at_most=85)
    """Highest camera, degrees above the horizon."""

    def check(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            UserError: names them.
        """
        super().check()
        if self.low_elevation > self.high_elevation:
            raise UserError(
                f"low_elevation {self.low_elevation} lies above high_elevation "
                f"{self.high_elevation}; exchange them"
            )
