"""Settings of likeness."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from renderer.render import RenderSettings
from runtime.config import setting
from runtime.errors import UserError

Level = Literal["off", "guide", "full"]
"""How far to go."""


@dataclass
class CameraSettings:
    """Expected departures of a portrait's camera from the usual one, as standard deviations."""

    iterations: int = setting(3, at_least=0, at_most=1000)
    """Gauss-Newton steps each time the camera is estimated, which it is for portraits unlike those
    learnt from; 0 keeps it as given."""
    size: int = setting(48, at_least=8, at_most=1024)
    """Side in pixels of the pictures that are compared."""
    yaw: float = setting(5.0, above=0)
    """Turn about the vertical, degrees."""
    pitch: float = setting(4.0, above=0)
    """Turn up or down, degrees."""
    roll: float = setting(2.0, above=0)
    """Turn about the line of sight, degrees."""
    right: float = setting(0.02, above=0)
    """Shift to the right, in picture sides."""
    down: float = setting(0.02, above=0)
    """Shift downwards, in picture sides."""
    scale: float = setting(0.04, above=0)
    """Relative size."""
    dolly: float = setting(0.1, above=0)
    """Relative distance at constant size."""
    noise: float = setting(0.25, above=0)
    """Deviation of a compared pixel; large, for neighbours err alike."""

    def deviations(self) -> Tensor:
        """[D], degrees as radians."""
        radians = [math.radians(v) for v in (self.yaw, self.pitch, self.roll)]
        return torch.tensor([*radians, self.right, self.down, self.scale, self.dolly])


@dataclass
class LightSettings:
    """Expected departures of a portrait's light from the studio's."""

    size: int = setting(48, at_least=8, at_most=1024)
    """Side in pixels of the pictures that are compared."""
    direction: float = setting(0.15, at_least=0)
    """Deviation of the shading's change with the normal; 0 estimates no light."""
    level: float = setting(0.05, at_least=0)
    """Deviation of each colour's brightness."""
    noise: float = setting(1.0, above=0)
    """Deviation of a compared pixel; large, for neighbours err alike and people's skins differ."""


@dataclass
class CoefficientSettings:
    """Settings of the search for the linear prior's coefficients."""

    newton_steps: int = setting(8, at_least=0, at_most=1000)
    """Damped Newton steps, each on a quarter of the pixels; in every round."""
    steps: int = setting(40, at_least=0, at_most=10**5)
    """Steps of Adam in the last round; each renders and differentiates ``rays`` pixels."""
    rays: int = setting(2048, at_least=1, at_most=2**20)
    """Pixels per step."""
    learning_rate: float = setting(0.05, above=0)
    """Adam's step size in standard deviations of the coefficients."""
    opacity_weight: float = setting(0.3, at_least=0)
    """Weight of the squared opacity error beside the squared colour error."""
    prior_weight: float = setting(2e-5, above=0)
    """Weight of the coefficients' squared distance from their start, each in its deviations."""


@dataclass
class PlaneSettings:
    """Settings of tuning the planes themselves once the coefficients are found."""

    steps: int = setting(70, at_least=0, at_most=10**5)
    """Steps of Adam; 0 leaves the planes as the coefficients give them."""
    size: int = setting(128, at_least=2, at_most=1024)
    """Plane size H to tune at; portraits of 128² and more hold detail that 64² can't."""
    rays: int = setting(2048, at_least=1, at_most=2**20)
    """Pixels of the portrait per step."""
    side_rays: int = setting(1536, at_least=1, at_most=2**20)
    """Pixels of the side views per step."""
    side_weight: float = setting(0.5, at_least=0)
    """Weight of the side views' colour and opacity errors beside the portrait's."""
    learning_rate: float = setting(0.01, above=0)
    """Adam's step size."""
    prior_weight: float = setting(0.05, at_least=0)
    """Weight of the planes' squared distance from their start."""
    free_space_weight: float = setting(0.1, at_least=0)
    """Weight of the opacity of space that nobody fills, or that the portrait shows to be empty."""
    free_space_points: int = setting(2000, at_least=1, at_most=2**20)
    """Points per step at which it is looked at."""
    smoothness_weight: float = setting(3.0, at_least=0)
    """Weight of the difference's total variation."""


@dataclass
class SimilarSettings:
    """Settings of carrying the portrait's colours to what looks alike and is hidden."""

    share: float = setting(1.0, at_least=0.0, at_most=1.0)
    """How much of a difference is carried; 0 carries none."""
    likeness: float = setting(0.1, above=0.0)
    """Distance of colours in [0, 1] at which things begin to look different."""
    reach: float = setting(1.0, above=0.0)
    """Distance in world units at which they begin to be far."""
    doubt: float = setting(0.01, above=0.0)
    """Part of the portrait's surface that must look alike for half of its difference to count."""
    samples: int = setting(1500, at_least=1, at_most=100_000)
    """Points of the portrait's surface that are compared with."""


@dataclass
class SideSettings:
    """Side views that protect what the portrait doesn't show."""

    size: int = setting(96, at_least=16, at_most=1024)
    """Their side in pixels."""
    azimuths: tuple[float, ...] = (-135, -90, -60, -30, 0, 0, 30, 60, 90, 135, 180)
    """Where they stand, in degrees from the portrait's camera; 90 sees the subject's left side."""
    elevations: tuple[float, ...] = setting(
        (10, 0, 15, -10, 35, -30, 15, -10, 10, 0, 10), at_least=-85, at_most=85
    )
    """How high, in degrees above it."""
    least_cosine: float = setting(0.25, at_least=0, at_most=1)
    """Surface that turns its normal further from the portrait's rays than this is not trusted."""
    tolerance: float = setting(0.06, above=0)
    """How far apart two surfaces along one ray are different ones, in world units."""
    carry: bool = True
    """Carry what the portrait shows differently along the surface to the side views."""
    symmetry: float = setting(0.5, at_least=0, at_most=1)
    """How much of a difference is carried to the mirrored place where the portrait is silent."""
    similar: SimilarSettings = field(default_factory=SimilarSettings)
    """What is carried to everything else."""

    def check(self) -> None:
        """Refuse places that are not pairs of an azimuth and an elevation (UserError)."""
        if len(self.azimuths) != len(self.elevations):
            raise UserError(
                f"side views have {len(self.azimuths)} azimuths but {len(self.elevations)} "
                "elevations; give as many of both."
            )


@dataclass
class LikenessSettings:
    """Settings of making an avatar look like its portrait."""

    level: Level = "full"
    """off: the first guess from the portrait; guide: coefficients that show the portrait
    best (15 s on two cores); full: planes tuned to its pixels as well (60 s)."""
    size: int = setting(128, at_least=16, at_most=1024)
    """Side the portrait is resized to, in pixels."""
    place: bool = True
    """Bring a head that stands elsewhere in its picture to its usual place and size."""
    regression: bool = True
    """Expect the coefficients of the first guess, rather than the mean person."""
    networks: bool = True
    """Average regression's guess with that of the networks, where the model has some."""
    rounds: int = setting(2, at_least=1, at_most=100)
    """How often camera and light are estimated, each time before coefficients are sought."""
    camera: CameraSettings = field(default_factory=CameraSettings)
    """The portrait's camera."""
    light: LightSettings = field(default_factory=LightSettings)
    """The portrait's light."""
    march: RenderSettings = field(
        default_factory=lambda: RenderSettings(steps=160, grid=64, threshold=0.02)
    )
    """How rays are marched; the threshold is low, so that matter can grow."""
    coefficients: CoefficientSettings = field(default_factory=CoefficientSettings)
    """First: the coefficients of the linear prior."""
    sides: SideSettings = field(default_factory=SideSettings)
    """What holds the sides while the planes are tuned."""
    planes: PlaneSettings = field(default_factory=PlaneSettings)
    """Then: the planes themselves."""
    seed: int = 0
    """Names the pixels drawn."""
