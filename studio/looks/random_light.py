"""Random light as photographs have it: studio, window, overcast, sun, rooms, flash."""

from __future__ import annotations

import numpy as np

from studio.looks.lighting import Lamp, Light, Sun, light_rays

KINDS = {"studio": 0.24, "window": 0.22, "overcast": 0.14, "sun": 0.13, "room": 0.19, "flash": 0.08}

Colour = tuple[float, float, float]


def sample_light(rng: np.random.Generator) -> Light:
    """A light of a random kind; its darkest sides stay visible and the face is exposed as by a
    camera's meter, give or take half a stop."""
    names = list(KINDS)
    kind = names[int(rng.choice(len(names), p=list(KINDS.values())))]
    light = _MAKERS[kind](rng)
    # The meter sees the brighter cheek too; cameras and people brighten or darken a little.
    cheeks = [_received(light, side) for side in ((-0.8, 0.1, 0.6), (0.8, 0.1, 0.6))]
    brightest = max(1.0, max(cheeks) / _received(light, (0.0, 0.1, 1.0)))
    stops = float(np.clip(0.22 * rng.standard_normal(), -0.6, 0.45))
    return Light(
        light.kind,
        light.ambient,
        light.sky,
        light.ambient_colour,
        light.lamps,
        light.suns,
        exposure=0.95 * 2**stops / brightest**0.8,
    )


def harmonics(light: Light, n_directions: int = 96) -> np.ndarray:
    """Real spherical harmonics [9, 3] of the light's radiance, to second order, exposed.

    Order (l, m): 00, 1−1 (y), 10 (z), 11 (x), 2−2 (xy), 2−1 (yz), 20 (3z²−1), 21 (xz), 22 (x²−y²),
    axes of the house world.
    """
    rays = light_rays(light, n_directions)
    return _basis(rays.directions).T @ rays.power


def _basis(d: np.ndarray) -> np.ndarray:
    """[n, 9] of unit directions [n, 3]."""
    x, y, z = d.T
    return np.stack(
        [
            np.full_like(x, 0.282095),
            0.488603 * y,
            0.488603 * z,
            0.488603 * x,
            1.092548 * x * y,
            1.092548 * y * z,
            0.315392 * (3 * z * z - 1),
            1.092548 * x * z,
            0.546274 * (x * x - y * y),
        ],
        -1,
    )


def _received(light: Light, towards: tuple[float, float, float]) -> float:
    """What a surface that faces `towards` receives, in units of one that looks ahead."""
    rays = light_rays(light, 96)
    axis = np.array(towards) / np.linalg.norm(towards)
    return float((np.maximum(rays.directions @ axis, 0)[:, None] * rays.power).sum(0).mean())


def _colour(rng: np.random.Generator, low: float, high: float) -> Colour:
    """White of a random warmth left over after white balance: −1 cool (shade) .. 1 warm (bulb)."""
    warm = float(rng.uniform(low, high))
    return (1 + 0.16 * warm, 1 + 0.01 * warm, 1 - 0.2 * warm)


def _towards(rng: np.random.Generator, azimuth: tuple, elevation: tuple) -> Colour:
    """A direction at random degrees: azimuth from straight ahead to either side, elevation up."""
    a = np.radians(rng.uniform(*azimuth)) * rng.choice([-1, 1])
    e = np.radians(rng.uniform(*elevation))
    return (float(np.sin(a) * np.cos(e)), float(np.sin(e)), float(np.cos(a) * np.cos(e)))


def _rims(rng: np.random.Generator, most: int) -> tuple[Lamp, ...]:
    count = int(rng.integers(most + 1))
    return tuple(
        Lamp(
            _towards(rng, (120, 170), (0, 50)),
            float(rng.uniform(0.3, 1.6)),
            float(rng.uniform(4, 14)),
            _colour(rng, -1, 1),
        )
        for _ in range(count)
    )


def _studio(rng: np.random.Generator) -> Light:
    key = Lamp(
        _towards(rng, (5, 60), (10, 55)),
        1.0,
        float(rng.uniform(3, 16)),
        _colour(rng, -0.3, 0.5),
    )
    key = Lamp(key.towards, 0.25 * (key.power + 1), key.power, key.colour)
    fill = Lamp(
        (-key.towards[0], 0.1, abs(key.towards[2])),
        float(rng.uniform(0.1, 0.9)),
        3.0,
        _colour(rng, -0.5, 0.3),
    )
    return Light("studio", float(rng.uniform(0.08, 0.3)), 0.1, lamps=(key, fill, *_rims(rng, 2)))


def _window(rng: np.random.Generator) -> Light:
    power = float(rng.uniform(3, 9))
    window = Lamp(
        _towards(rng, (35, 95), (0, 35)), 0.3 * (power + 1), power, _colour(rng, -0.9, 0.1)
    )
    ambient = float(rng.uniform(0.12, 0.4))
    return Light("window", ambient, 0.08, _colour(rng, -0.2, 0.9), (window, *_rims(rng, 1)))


def _overcast(rng: np.random.Generator) -> Light:
    sky, ground = float(rng.uniform(0.7, 1.3)), float(rng.uniform(0.15, 0.45))
    cloud = Lamp(_towards(rng, (0, 120), (35, 80)), float(rng.uniform(0.2, 0.8)), 2.0)
    return Light("overcast", ground, sky, _colour(rng, -0.8, 0.2), (cloud,))


def _sun(rng: np.random.Generator) -> Light:
    strength = float(rng.uniform(0.5, 1.8))
    towards = _towards(rng, (10, 150), (15, 60))
    sun = Sun(towards, strength, float(rng.uniform(1.5, 9)), _colour(rng, 0.0, 0.9))
    ground = float(rng.uniform(0.25, 0.5))
    return Light("sun", ground, float(rng.uniform(0.3, 0.7)), _colour(rng, -0.7, 0.0), (), (sun,))


def _room(rng: np.random.Generator) -> Light:
    lamps = []
    for _ in range(int(rng.integers(1, 4))):
        power = float(rng.uniform(4, 18))
        strength = float(rng.uniform(0.08, 0.22)) * (power + 1)
        lamps.append(Lamp(_towards(rng, (0, 130), (20, 80)), strength, power, _colour(rng, 0, 1)))
    ambient = float(rng.uniform(0.2, 0.5))
    return Light("room", ambient, 0.15, _colour(rng, -0.1, 0.9), tuple(lamps))


def _flash(rng: np.random.Generator) -> Light:
    towards = (float(rng.uniform(-0.12, 0.12)), float(rng.uniform(0.0, 0.2)), 1.0)
    flash = Sun(towards, float(rng.uniform(0.6, 1.6)), float(rng.uniform(2, 6)))
    return Light("flash", float(rng.uniform(0.3, 0.5)), 0.2, _colour(rng, -0.1, 1), (), (flash,))


_MAKERS = {
    "studio": _studio,
    "window": _window,
    "overcast": _overcast,
    "sun": _sun,
    "room": _room,
    "flash": _flash,
}
