"""Settings of stage 1, the fit of the shared decoder; see :mod:`fitting.fit_decoder`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from captures.selection import SubjectSelection
from fitting.subject_fit import FitSettings
from runtime.config import own_first, setting


@own_first
@dataclass(kw_only=True)
class FitDecoderConfig(SubjectSelection):
    """Fit the shared decoder (stage 1)."""

    root: Path
    """Multi-view set to read."""
    output_dir: Path
    """Run folder to write; the same command resumes it."""
    image_size: int | None = setting(None, at_least=1, at_most=8192)
    """Resize pictures to this many pixels; their own size without it."""
    plane_size: int = setting(512, at_least=2, at_most=8192)
    """Texels along one side of a plane."""
    channels: int = setting(32, at_least=2, at_most=1024)
    """Channels of the triplane."""
    color_channels: int = setting(24, at_least=1, at_most=1024)
    """How many of them feed the colour network; the rest feed density."""
    hidden: int = setting(128, at_least=1, at_most=4096)
    """Width of the decoder's hidden layers."""
    initial_density: float = setting(20.0, above=0)
    """Density of the untrained decoder, per world unit. Opaque from the start, colour is learnt
    at surfaces at once; from 1, a fog, the same quality takes several times as long."""
    view_dependent: bool = True
    """Whether colour may depend on the viewing direction. Pictures with light baked into the
    surfaces do not need it, and few views teach it wrongly."""
    init: Literal["random", "mean"] = "random"
    """Start a subject from noise, or from the mean of the triplanes visited before it (plus the
    noise): heads have much in common, so few visits go further, and planes of different subjects
    stay alike where their subjects are."""
    rounds: int = setting(30, at_least=1, at_most=10**6)
    """How often every subject is visited."""
    inner_steps: int = setting(5000, at_least=1, at_most=10**9)
    """Steps of one visit."""
    subjects_per_step: int = setting(1, at_least=1, at_most=1024)
    """How many subjects are visited at once, each step taking fit.rays rays of every one and the
    mean of their decoder gradients; with several processes a multiple of their number."""
    decoder_learning_rate: float = setting(2e-3, at_least=0)
    """Adam step size of the decoder at the start."""
    decoder_decay: float = setting(0.1, above=0)
    """Factor the decoder's learning rate falls by over the whole run (exponentially)."""
    revisit_drop: float = setting(10.0, at_least=0)
    """The triplane's learning rate in round r is divided by revisit_drop·r + 1."""
    carry_optimizer: bool = False
    """Go on with a triplane's Adam moments when its subject is visited again, instead of making
    them anew (as RodinHD does), whose first steps move every texel by the whole learning rate. They
    triple what is kept of a subject on disk between visits."""
    consolidation_weight: float = setting(0.1, at_least=0)
    """Weight λ/2 of the consolidation penalty; 0 turns it off."""
    consolidation: Literal["identity", "online"] = "identity"
    """One pair of importance and anchor per identity, holding the decoder while that identity is
    visited again (RodinHD), or one running pair for all, holding it in every visit."""
    online_decay: float = setting(0.9, at_least=0, at_most=1)
    """Share of the running importance that stays at a visit; only for consolidation online."""
    fisher_batches: int = setting(8, at_least=1, at_most=10**6)
    """Batches whose squared gradients make an identity's importance."""
    fit: FitSettings = field(default_factory=FitSettings)
    """Settings shared with stage 2."""
    seed: int = 0
    """Fixes every random number."""
    device: str = setting("auto", resumable=True)
    """auto, cpu, cuda or cuda:1."""
    save_every: int = setting(500, resumable=True, at_least=1)
    """Steps between saves within a visit; every visit is saved at its end."""
    log_every: int = setting(100, resumable=True, at_least=1)
    """Steps between lines of stats.jsonl."""
