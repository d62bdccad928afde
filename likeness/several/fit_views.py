"""One person's planes from several pictures: coefficients, cameras and planes found together.

::

    portraits ─ likeness of the first ─ cameras ⇄ coefficients ─ planes
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from likeness.descent import Marcher, draw, picture_error
from likeness.fit import fit_likeness
from likeness.learned.likeness_model import LikenessModel
from likeness.portrait.portrait import Portrait
from likeness.portrait.portrait_camera import FREEDOMS, find_camera, moved
from likeness.portrait.side_views import side_views
from likeness.portrait.surface import silhouette_hull
from likeness.settings import LikenessSettings
from likeness.several.alignment import align
from likeness.several.group import Group
from likeness.several.poses import WIDE, find_pose
from likeness.tuning import tune_planes
from renderer.decoder import TriplaneDecoder
from renderer.render import render_images
from runtime.config import setting
from runtime.seeds import generator

TURNS = tuple(range(-75, 76, 15))
NEAR = 25.0
"""Degrees from a picture within which no side view is needed."""


@dataclass
class SeveralSettings:
    """Settings of fitting planes to several pictures of one person."""

    rounds: int = setting(2, at_least=1, at_most=100)
    """How often cameras are estimated, each time before coefficients are sought."""
    steps: int = setting(60, at_least=0, at_most=10**5)
    """Steps of Adam on the coefficients in every round."""
    rays: int = setting(2048, at_least=1, at_most=2**20)
    """Pixels per step, of all pictures."""
    learning_rate: float = setting(0.05, above=0)
    """Adam's step size in standard deviations of the coefficients."""
    plane_steps: int = setting(120, at_least=0, at_most=10**5)
    """Steps of Adam on the planes."""
    plane_prior_weight: float = setting(0.02, at_least=0)
    """Weight of the planes' squared distance from their start."""
    plane_smoothness_weight: float = setting(1.0, at_least=0)
    """Weight of the difference's total variation."""


def _ignore(step: str) -> None:
    """Tell nobody."""


@dataclass
class SeveralRecord:
    """A record of what was found out about several pictures."""

    seconds: float = 0.0
    """Wall time."""
    psnr: list[float] = field(default_factory=list)
    """How well the avatar shows each picture, in dB on white."""
    azimuths: list[float] = field(default_factory=list)
    """Where each picture was taken from, in degrees from the front towards the subject's left."""
    warnings: list[str] = field(default_factory=list)
    """Sentences for the user."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def fit_views(
    portraits: Sequence[Portrait],
    model: LikenessModel,
    decoder: TriplaneDecoder,
    *,
    cameras_known: bool,
    aligned: bool = True,
    likeness: LikenessSettings | None = None,
    settings: SeveralSettings | None = None,
    tell: Callable[[str], None] = _ignore,
) -> tuple[Tensor, list[Portrait], SeveralRecord]:
    """Return planes [3, C, H, W], the pictures with their cameras, and what was found out.

    Args:
        portraits: the first one shows the face from the front.
        cameras_known: their cameras are true; else each has the model's, and they are estimated.
        aligned: the person stands where the model expects people; else this is found first.
        tell: called with the name of each step that is begun.
    """
    likeness = likeness or LikenessSettings()
    settings = settings or SeveralSettings()
    began = time.perf_counter()
    if cameras_known and not aligned:
        portraits = align(portraits, model, decoder)
    search = _Search(portraits, model, decoder, likeness, settings, cameras_known, tell)
    search.run()
    tell("planes")
    planes = search.tuned()
    record = SeveralRecord()
    for one in search.seen:
        shown = render_images(planes, decoder, one.camera, 1.0, likeness.march).color[0]
        error = (shown - one.color).square().mean().clamp(min=1e-10)
        record.psnr.append(round(-10 * error.log10().item(), 2))
        record.azimuths.append(round(_azimuth(one), 1))
    record.seconds = time.perf_counter() - began
    return planes, search.seen, record


def _azimuth(portrait: Portrait) -> float:
    x, _, z = portrait.camera.c2w[0, :3, 3].tolist()
    return float(torch.atan2(torch.tensor(x), torch.tensor(z)).rad2deg())


class _Search:
    """Coefficients and cameras, improved by turns."""

    def __init__(
        self,
        portraits: Sequence[Portrait],
        model: LikenessModel,
        decoder: TriplaneDecoder,
        likeness: LikenessSettings,
        settings: SeveralSettings,
        cameras_known: bool,
        tell: Callable[[str], None],
    ) -> None:
        self.model, self.decoder, self.tell = model, decoder, tell
        self.likeness, self.settings, self.known = likeness, settings, cameras_known
        self.usual = [one.resized(likeness.size) for one in portraits]
        self.seen = list(self.usual)
        self.freedoms = [torch.zeros(len(FREEDOMS)) for _ in self.usual]
        self.coefficients = torch.zeros(model.prior.components)

    def planes(self) -> Tensor:
        """The planes [3, C, H, W] of the coefficients so far."""
        return self.model.prior.planes(self.coefficients).clamp(-1, 1)

    def run(self) -> None:
        """Go through the rounds."""
        self.tell("first picture")
        first = self.usual[0].seen_from(
            self.model.camera.scaled_to(self.usual[0].size, self.usual[0].size)
        )
        guide = replace(self.likeness, level="guide")
        planes, _ = fit_likeness(first, self.model, self.decoder, guide)
        self.coefficients = self.model.prior.coefficients(planes[None])[0]
        self.expected = self.coefficients
        rounds = 1 if self.known else self.settings.rounds
        for index in range(rounds):
            if not self.known:
                self.tell("cameras")
                self._find_cameras(first=index == 0)
            self.tell("coefficients")
            self._descend(index)

    def _find_cameras(self, first: bool) -> None:
        planes = self.planes()
        for index, one in enumerate(self.usual):
            if first and index:
                found = find_pose(one, planes, self.decoder, TURNS).freedoms
            else:
                width = WIDE if index else replace(self.likeness.camera, iterations=4)
                start = self.freedoms[index]
                found = find_camera(one, one.camera, start, planes, self.decoder, width)
            self.freedoms[index] = found
            self.seen[index] = one.seen_from(moved(one.camera, found))

    def _descend(self, index: int) -> None:
        s = self.settings
        group = Group(tuple(self.seen))
        marcher = Marcher(self.decoder, self.likeness.march)
        random = generator(self.likeness.seed, "several", index)
        found = self.coefficients.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([found], lr=s.learning_rate)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(s.steps, 1))
        spread = self.model.guess.spread.clamp(min=0.1)
        weight = self.likeness.coefficients.prior_weight / len(self.seen)
        for _ in range(s.steps):
            planes = self.model.prior.planes(found).clamp(-1, 1)
            pixels = draw(group, s.rays, random)
            loss = picture_error(marcher, planes, group, pixels, 0.3)
            unlikely = ((found - self.expected) / spread).square().sum()
            optimizer.zero_grad()
            (loss + weight * unlikely).backward()
            optimizer.step()
            decay.step()
        self.coefficients = found.detach()

    def tuned(self) -> Tensor:
        """Planes tuned to all pictures."""
        planes = self.planes()
        like = self.likeness
        sides = self._sides(planes)
        hull = self.model.space
        for one in self.seen:
            hull = silhouette_hull(one, hull)
        how = replace(
            like.planes,
            steps=self.settings.plane_steps,
            prior_weight=self.settings.plane_prior_weight,
            smoothness_weight=self.settings.plane_smoothness_weight,
        )
        group = Group(tuple(self.seen))
        marcher = Marcher(self.decoder, like.march)
        noise = self.model.prior.noise
        return tune_planes(group, sides, planes, noise, hull, marcher, how, like.seed)

    def _sides(self, planes: Tensor) -> list[Portrait]:
        """Side views from where there is no picture."""
        every = side_views(self.seen[0], planes, self.decoder, self.likeness.sides)
        taken = torch.stack([one.camera.c2w[0, :3, 3] for one in self.seen])
        taken = torch.nn.functional.normalize(taken, dim=1)
        least = torch.tensor(NEAR).deg2rad().cos()
        kept = []
        for side in every:
            place = torch.nn.functional.normalize(side.camera.c2w[0, :3, 3], dim=0)
            if (taken @ place).max() < least:
                kept.append(side)
        return kept
