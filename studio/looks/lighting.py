"""Light baked per vertex: environments fixed to the world, shadowed through depth maps.

The shading is Lambertian, so a surface has one colour from
every camera, which is what a triplane can represent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from studio.drawing.raster import Camera, inverse_depth, load_kernels
from studio.drawing.scene import Part, flatten

if TYPE_CHECKING:
    from studio.drawing.kernels.shadow_kernels import Receivers

_EXTENT = 1.45  # half width of the depth maps, world units: covers the bust with its hair
_DISTANCE = 60.0  # far enough for nearly parallel rays
_BOUNCE = 0.55  # how much light reflects between the walls of a crease, for a mean albedo


def sphere_directions(n: int) -> np.ndarray:
    """n unit vectors [n, 3] spread evenly over the sphere (golden spiral)."""
    i = np.arange(n) + 0.5
    y = 1 - 2 * i / n
    phi = i * np.pi * (3 - np.sqrt(5))
    r = np.sqrt(1 - y * y)
    return np.stack([r * np.cos(phi), y, r * np.sin(phi)], -1)


@dataclass(frozen=True)
class Lamp:
    """A soft light of an environment: a cosine lobe.

    Args:
        towards: direction of its middle as seen from the head; any length.
        strength: radiance at its middle.
        power: of the cosine; 1 fills half the sphere, 20 is as small as a softbox.
        colour: linear RGB factor.
    """

    towards: tuple[float, float, float]
    strength: float
    power: float
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Sun:
    """A small light, which throws shadows with edges.

    Args:
        towards: its direction as seen from the head; any length.
        strength: what a surface facing it receives, relative to what a face looking ahead
            receives from the rest of the environment.
        spread: radius of the light, degrees; it softens the edges.
        colour: linear RGB factor.
    """

    towards: tuple[float, float, float]
    strength: float
    spread: float = 3.0
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Light:
    """An environment fixed to the world, infinitely far away.

    Args:
        kind: a word for it.
        ambient, sky: radiance from everywhere, and added towards straight up.
        ambient_colour: linear RGB factor of both.
        lamps, suns: what shines beyond that.
        exposure: how bright a face looking straight ahead comes out, unshadowed: the linear
            factor on its own colour.
    """

    kind: str
    ambient: float
    sky: float
    ambient_colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    lamps: tuple[Lamp, ...] = ()
    suns: tuple[Sun, ...] = ()
    exposure: float = 0.95

    def radiance(self, directions: np.ndarray) -> np.ndarray:
        """Radiance [n, 3] from unit `directions` [n, 3], but for the suns."""
        up = 0.5 + 0.5 * directions[:, 1:2]
        out = (self.ambient + self.sky * up) * np.array(self.ambient_colour)
        for lamp in self.lamps:
            axis = np.array(lamp.towards) / np.linalg.norm(lamp.towards)
            lobe = np.maximum(directions @ axis, 0.0)[:, None] ** lamp.power
            out = out + lamp.strength * lobe * np.array(lamp.colour)
        return out


# A large warm key front left, cool fill from the right, a rim from behind.
STUDIO = Light(
    "studio",
    0.2,
    0.24,
    (1.0, 1.0, 1.02),
    (
        Lamp((-0.5, 0.55, 0.8), 1.25, 5, (1.04, 1.0, 0.95)),
        Lamp((0.7, 0.15, 0.7), 0.55, 4, (0.97, 1.0, 1.03)),
        Lamp((0.4, 0.5, -0.8), 0.45, 5),
        Lamp((-0.6, 0.4, -0.7), 0.35, 5),
    ),
)


@dataclass(frozen=True)
class Rays:
    """A light as parallel rays.

    Args:
        directions: [n, 3] unit, towards the light.
        power: [n, 3] what a surface facing a direction receives from it, linear RGB.
        sharp: [n] whether a direction's shadows are to have edges.
    """

    directions: np.ndarray
    power: np.ndarray
    sharp: np.ndarray


def light_rays(light: Light, n_directions: int) -> Rays:
    """`light` with its exposure as parallel rays; the first `n_directions` are the same for all."""
    directions = sphere_directions(n_directions)
    radiance = light.radiance(directions)
    ahead = np.array([0.0, 0.1, 1.0]) / np.linalg.norm([0.0, 0.1, 1.0])
    soft = (np.maximum(directions @ ahead, 0)[:, None] * radiance).sum(0).mean()
    received = soft
    suns, powers = [], []
    for sun in light.suns:
        aims = _around(np.array(sun.towards) / np.linalg.norm(sun.towards), sun.spread)
        power = soft * sun.strength * np.array(sun.colour) / len(aims)
        received = received + (np.maximum(aims @ ahead, 0)[:, None] * power).sum(0).mean()
        suns.append(aims)
        powers.append(np.tile(power, (len(aims), 1)))
    power = np.concatenate([radiance, *powers]) * (light.exposure / received)
    directions = np.concatenate([directions, *suns])
    return Rays(directions, power, np.arange(len(directions)) >= n_directions)


def _around(axis: np.ndarray, degrees: float, n: int = 5) -> np.ndarray:
    """n unit vectors [n, 3] on a circle around `axis`."""
    side = np.cross(axis, [0.3, 1.0, 0.2])
    side /= np.linalg.norm(side)
    turn = 2 * np.pi * np.arange(n)[:, None] / n
    off = np.cos(turn) * side + np.sin(turn) * np.cross(axis, side)
    out = axis + np.tan(np.radians(degrees)) * 0.7 * off
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def _camera_along(direction: np.ndarray, size: int) -> Camera:
    forward = -direction
    up = np.array([0.0, 1.0, 0.0]) if abs(direction[1]) < 0.95 else np.array([0.0, 0.0, 1.0])
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward], -1)
    focal = size * _DISTANCE / (2 * _EXTENT)
    half = size / 2
    return Camera(
        np.ascontiguousarray(rotation), direction * _DISTANCE, focal, focal, half, half, size, size
    )


def bake_light(parts: list[Part], n_directions: int = 96, map_size: int = 256) -> None:
    """Set `light` of every part to the studio's, in place; see `bake_lights`."""
    for part, light in zip(
        parts, bake_lights(parts, (STUDIO,), n_directions, map_size)[0], strict=True
    ):
        part.light = light


def bake_lights(
    parts: list[Part], lights: tuple[Light, ...], n_directions: int = 96, map_size: int = 256
) -> list[list[np.ndarray]]:
    """For each light the factor [V, 3] on the colour of every part's vertices.

    All lights share the depth maps, which take most of the time.

    Args:
        n_directions: directions of the environment that are traced.
        map_size: depth map's side in samples; suns have maps twice as fine.
    """
    load_kernels()
    from studio.drawing.kernels.shadow_kernels import ShadowMap, gather

    casters = flatten([part for part in parts if part.casts])
    rays = [light_rays(light, n_directions) for light in lights]
    receivers, slices = _receivers(parts)
    lit = np.zeros((len(receivers.points), 3 * len(lights)))
    open_sky = np.zeros_like(lit)

    def trace(direction: np.ndarray, power: np.ndarray, size: int) -> None:
        camera = _camera_along(direction, size)
        nearest = inverse_depth(casters, camera)
        shadows = ShadowMap(nearest, camera.rotation, camera.origin, camera.fx)
        gather(receivers, direction, power, shadows, lit, open_sky)

    soft = np.concatenate([r.power[:n_directions] for r in rays], axis=1)
    for direction, power in zip(rays[0].directions[:n_directions], soft, strict=True):
        trace(direction, power, map_size)
    for k, of_light in enumerate(rays):
        for n in np.flatnonzero(of_light.sharp):
            power = np.zeros(lit.shape[1])
            power[3 * k : 3 * k + 3] = of_light.power[n]
            trace(of_light.directions[n], power, 2 * map_size)
    # Light that bounces inside creases: Jimenez et al. 2016, "Practical real-time strategies for
    # accurate indirect occlusion", approximated by one interreflection of the mean albedo.
    visible = lit / np.maximum(open_sky, 1e-6)
    tint = np.tile([1.25, 0.95, 0.85], len(lights))
    bounced = visible + _BOUNCE * tint * visible * (1 - visible)
    light = (open_sky * np.minimum(bounced, 1.0)).astype(np.float32)
    columns = [slice(3 * k, 3 * k + 3) for k in range(len(lights))]
    return [[light[start:end, c].copy() for start, end in slices] for c in columns]


def _receivers(parts: list[Part]) -> tuple[Receivers, list[tuple[int, int]]]:
    """All parts' vertices, and where each part's begin and end."""
    from studio.drawing.kernels.shadow_kernels import Receivers

    points, normals, lift, wrap, slices = [], [], [], [], []
    start = 0
    for part in parts:
        n = len(part.positions)
        soft = part.label == "hair"
        normal = part.normals
        if soft:
            # A card's own normal says nothing about the head of hair it stands for.
            centre = np.array([0.0, 0.15, -0.05])
            outward = part.positions - centre
            normal = outward / np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
        points.append(part.positions)
        normals.append(normal)
        lift.append(np.full(n, 0.05 if soft else 0.014))
        wrap.append(np.full(n, 0.45 if soft else 0.12))
        slices.append((start, start + n))
        start += n
    joined = (np.concatenate(x).astype(np.float32) for x in (points, normals, lift, wrap))
    return Receivers(*joined), slices
