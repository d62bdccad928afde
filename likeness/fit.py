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

from likeness.coefficients import find_coefficients
from likeness.descent import Marcher
from likeness.framing import find_placement, placed
from likeness.model import LikenessModel
from likeness.portrait import Portrait
from likeness.portrait_camera import FREEDOMS, find_camera, moved
from likeness.portrait_light import evenly_lit, find_light
from likeness.settings import LikenessSettings
from likeness.side_views import side_views
from likeness.tuning import tune_planes
from renderer.decoder import TriplaneDecoder
from renderer.render import render_images


@dataclass
class LikenessRecord:
    """What was found out about a portrait."""

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
) -> tuple[Tensor, LikenessRecord]:
    """Return the triplane [3, C, H, W] of the person in a portrait, and what was found out.

    Args:
        portrait: its camera is where the portrait would have been taken in the training set.
        model: prior and regression.
        decoder: of the prior's triplanes, frozen.
    """
    settings = settings or LikenessSettings()
    began = time.perf_counter()
    record = LikenessRecord(settings.level)
    portrait = portrait.resized(settings.size)
    if settings.place:
        record.placement = find_placement(portrait, model.regression)
        portrait = placed(portrait, *record.placement)
    record.surprise = model.regression.surprise(portrait)
    coefficients = model.regression(portrait)
    planes = model.prior.planes(coefficients).clamp(-1, 1)
    seen = portrait
    if settings.level != "off":
        coefficients, seen = _guide(portrait, coefficients, model, decoder, settings, record)
        planes = model.prior.planes(coefficients).clamp(-1, 1)
    if settings.level == "full":
        sides = side_views(seen, planes, decoder, settings.sides)
        marcher = Marcher(decoder, settings.march)
        planes = tune_planes(
            seen, sides, planes, model.prior.noise, marcher, settings.planes, settings.seed
        )
    shown = render_images(planes, decoder, seen.camera, 1.0, settings.march.render_settings())
    error = (shown.color[0] - seen.color).square().mean()
    record.portrait_psnr = float(-10 * error.clamp(min=1e-10).log10())
    record.distance = float(coefficients.square().mean())
    record.seconds = time.perf_counter() - began
    record.warnings = _warnings(record)
    return planes, record


def _guide(
    portrait: Portrait,
    start: Tensor,
    model: LikenessModel,
    decoder: TriplaneDecoder,
    settings: LikenessSettings,
    record: LikenessRecord,
) -> tuple[Tensor, Portrait]:
    """Coefficients, camera and light by turns: coefficients [K], the portrait with its camera."""
    freedoms, light = torch.zeros(len(FREEDOMS)), torch.zeros(3, 4)
    coefficients, seen = start, portrait
    marcher = Marcher(decoder, settings.march)
    rounds = settings.rounds if settings.camera.iterations or settings.light.direction else 1
    for index in range(rounds):
        planes = model.prior.planes(coefficients).clamp(-1, 1)
        even = seen
        if settings.camera.iterations:
            freedoms = find_camera(
                portrait, portrait.camera, freedoms, planes, decoder, settings.camera
            )
            even = seen = portrait.seen_from(moved(portrait.camera, freedoms))
        if settings.light.direction:
            light = find_light(seen, planes, decoder, settings.light)
            even = evenly_lit(seen, light, planes, decoder)
        coefficients = find_coefficients(
            even,
            model,
            marcher,
            coefficients,
            settings.coefficients,
            settings.coefficients.steps // rounds,
            settings.seed + index,
        )
    record.camera = dict(zip(FREEDOMS, freedoms.tolist(), strict=True))
    record.light = light.tolist()
    return coefficients, seen


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
