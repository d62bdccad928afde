"""A portrait's avatar: the road from pixels to planes.

::

    portrait ─ placement ─ regression ─ coefficients ⇄ camera, light ─ planes
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from likeness.coefficients import CoefficientSearch, Expected
from likeness.descent import Marcher
from likeness.learned.likeness_model import LikenessModel
from likeness.portrait.placement import find_placement, placed
from likeness.portrait.portrait import Portrait
from likeness.portrait.portrait_camera import FREEDOMS, find_camera, moved
from likeness.portrait.portrait_light import evenly_lit, find_light
from likeness.portrait.side_views import side_views
from likeness.portrait.surface import silhouette_hull
from likeness.settings import LikenessSettings
from likeness.several.poses import TURNED, find_turn
from likeness.tuning import tune_planes
from renderer.decoder import TriplaneDecoder
from renderer.render import render_images


@dataclass
class LikenessRecord:
    """A record of what was found out about a portrait."""

    level: str = "full"
    """"off", "guide" or "full"."""
    seconds: float = 0.0
    """Wall time."""
    portrait_psnr: float = 0.0
    """How well the avatar shows the portrait, in dB on white."""
    surprise: float = 0.0
    """How unusual the portrait is among those learnt from; 1 is what nine of ten stay under."""
    distance: float = 0.0
    """Mean squared deviation of the coefficients from the mean person; about 1 for people."""
    placement: tuple[float, float, float] = (1.0, 0.0, 0.0)
    """Scale and shift (right, down; in sides) that brought the head into place."""
    camera: dict[str, float] = field(default_factory=dict)
    """Departures of the portrait's camera from the usual one; angles in radians."""
    light: list[list[float]] = field(default_factory=list)
    """Relative change of red, green and blue by 1, nx, ny, nz."""
    warnings: list[str] = field(default_factory=list)
    """Sentences for the user."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def fit_likeness(
    portrait: Portrait,
    model: LikenessModel,
    decoder: TriplaneDecoder,
    settings: LikenessSettings | None = None,
    sample: int = 0,
) -> tuple[Tensor, LikenessRecord]:
    """Return the triplane [3, C, H, W] of the person in a portrait, and what was found out.

    Args:
        portrait: its camera is where the portrait would have been taken in the training set.
        model: prior and regression.
        decoder: of the prior's triplanes, frozen.
        sample: 0 for the most likely person, else a draw of those who also look like that.
    """
    settings = settings or LikenessSettings()
    began = time.perf_counter()
    record = LikenessRecord(settings.level)
    portrait = portrait.resized(settings.size)
    if settings.place:
        record.placement = find_placement(portrait, model.regression)
        portrait = placed(portrait, *record.placement)
    record.surprise = model.regression.surprise(portrait)
    search = _Search(portrait, model, decoder, settings, sample)
    if settings.level != "off":
        search.run()
    planes = search.planes()
    if settings.level == "full":
        sides = side_views(search.seen, planes, decoder, settings.sides)
        planes = tune_planes(
            search.seen,
            sides,
            planes,
            model.prior.noise,
            silhouette_hull(search.seen, model.space),
            Marcher(decoder, settings.march),
            settings.planes,
            settings.seed,
        )
    shown = render_images(planes, decoder, search.seen.camera, 1.0, settings.march)
    error = (shown.color[0] - search.seen.color).square().mean()
    record.portrait_psnr = float(-10 * error.clamp(min=1e-10).log10())
    record.distance = float(search.coefficients.square().mean())
    record.camera = dict(zip(FREEDOMS, search.freedoms.tolist(), strict=True))
    record.light = search.light.tolist()
    record.seconds = time.perf_counter() - began
    record.warnings = _warnings(record)
    return planes, record


class _Search:
    """Coefficients, camera and light of one portrait, improved by turns.

    Attributes:
        coefficients: [K], so far.
        freedoms: [D] of the camera, so far.
        light: [3, 4], so far.
        seen: the portrait with its camera, so far.
        unusual: whether the portrait is framed so that its camera is worth estimating.
    """

    def __init__(
        self,
        portrait: Portrait,
        model: LikenessModel,
        decoder: TriplaneDecoder,
        settings: LikenessSettings,
        sample: int,
    ) -> None:
        self.portrait, self.model, self.decoder = portrait, model, decoder
        self.settings, self.sample = settings, sample
        self.seen = portrait
        # A camera that is as usual is better left alone: faces differ in what moves it, too.
        self.unusual = model.regression.surprise(portrait) > 1
        self.freedoms, self.light = torch.zeros(len(FREEDOMS)), torch.zeros(3, 4)
        self.coefficients = self._expected(portrait).mean

    def planes(self) -> Tensor:
        """The planes [3, C, H, W] of the coefficients so far."""
        return self.model.prior.planes(self.coefficients).clamp(-1, 1)

    def run(self) -> None:
        """Go through the settings' rounds."""
        s = self.settings
        marcher = Marcher(self.decoder, s.march)
        rounds = s.rounds if s.camera.iterations or s.light.direction else 1
        for index in range(rounds):
            even = self._estimate_camera_and_light()
            search = CoefficientSearch(
                even,
                self.model,
                self._expected(even),
                marcher,
                s.coefficients,
                s.seed + index,
            )
            found = search.newton(self.coefficients, s.coefficients.newton_steps)
            steps = s.coefficients.steps if index == rounds - 1 else 0
            self.coefficients = search.adam(found, steps)

    def _expected(self, portrait: Portrait) -> Expected:
        if self.settings.regression:
            guess = self.model.guess
            if not self.settings.networks:
                guess = guess.without_networks()
            expected = Expected(guess(portrait), guess.spread.clamp(min=0.1))
            if self.freedoms[:2].abs().max() > TURNED:
                # Regression knows heads that look into the camera: half of what it says counts.
                expected = Expected(expected.mean / 2, torch.ones_like(expected.spread))
        else:
            zeros = torch.zeros(self.model.prior.components)
            expected = Expected(zeros, zeros + 1)
        return expected.drawn(self.settings.seed, self.sample)

    def _estimate_camera_and_light(self) -> Portrait:
        """Update both for the coefficients so far; the portrait without its light."""
        s, planes = self.settings, self.planes()
        if s.camera.iterations and self.unusual:
            usual = self.portrait.camera
            if not self.freedoms.any():
                self.freedoms = find_turn(self.portrait, planes, self.decoder)
            self.freedoms = find_camera(
                self.portrait, usual, self.freedoms, planes, self.decoder, s.camera
            )
            self.seen = self.portrait.seen_from(moved(usual, self.freedoms))
        if not s.light.direction:
            return self.seen
        self.light = find_light(self.seen, planes, self.decoder, s.light)
        return evenly_lit(self.seen, self.light, planes, self.decoder)


def _warnings(record: LikenessRecord) -> list[str]:
    found = []
    if record.surprise > 2:
        found.append(
            f"the portrait is unlike those learnt from (surprise {record.surprise:.1f}, nine of "
            "ten stay under 1): framing, light, headgear or a bad cut-out; the avatar may be wrong"
        )
    if record.portrait_psnr < 20:
        found.append(
            f"the avatar shows its own portrait badly ({record.portrait_psnr:.1f} dB); look at it "
            "before you use it"
        )
    return found
