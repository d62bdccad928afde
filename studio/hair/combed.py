"""Combed hair in sheets: parted and long, swept back, tied in a bun.

A style is a closed sheet of strands. Parted hair starts at a parting, runs over the head on great
circles and hangs; combed-back hair follows the scalp towards the point where it is tied or ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.spatial import cKDTree

from studio.drawing.scene import Part, vertex_normals
from studio.drawing.textures import Texture, build_mips, encode

_MIDDLE = np.array([0.0, 0.2, -0.05])  # of the head, world units
_STRANDS, _OVER, _HANGING = 72, 22, 30  # points across one side, over the head, hanging
_STEP = 0.034  # length of a hanging step, world units


@dataclass(frozen=True)
class DrapeStyle:
    """Hair that falls from a parting; lengths in world units.

    Args:
        length: of what hangs below the ears, before the subject's own factor.
        parting: how far the parting lies beside the middle, radians.
        height: of the hair over the skull.
        front: azimuth of its front edge at the cheek, radians from straight ahead.
        inward: how far its tips turn in, relative to what hangs.
    """

    length: float
    parting: float
    height: float
    front: float
    inward: float = 0.0


@dataclass(frozen=True)
class CombedStyle:
    """Hair that follows the scalp.

    Args:
        height: over the scalp, world units.
        towards: direction from the head's middle in which strands run.
        bun: radius of a bun there, 0 for none, world units.
        sides: share of the height at the temples and the nape.
    """

    height: float
    towards: tuple[float, float, float]
    bun: float = 0.0
    sides: float = 1.0


DRAPE_STYLES = {
    "drapedbob": DrapeStyle(0.46, 0.0, 0.06, 0.95, 0.12),
    "drapedsidebob": DrapeStyle(0.44, 0.42, 0.07, 0.9, 0.12),
    "drapedlong": DrapeStyle(0.76, 0.0, 0.05, 1.05),
    "drapedsidelong": DrapeStyle(0.74, 0.4, 0.065, 1.0),
    "drapedcurtains": DrapeStyle(0.13, 0.12, 0.06, 1.25, 0.1),
}
COMBED_STYLES = {
    "sweptback": CombedStyle(0.07, (0.0, -0.55, -1.0), sides=0.35),
    "sweptside": CombedStyle(0.075, (1.0, -0.9, -0.2), sides=0.25),
    "topknot": CombedStyle(0.03, (0.0, 1.0, -0.75), bun=0.13),
    "bun": CombedStyle(0.03, (0.0, 0.25, -1.0), bun=0.15),
    "lowbun": CombedStyle(0.035, (0.0, -0.35, -1.0), bun=0.15),
}


def drape_parts(
    skin: Part,
    cover: tuple[np.ndarray, np.ndarray],
    style: DrapeStyle,
    length: float,
    mirrored: bool,
    colour: np.ndarray,
    rng: np.random.Generator,
    size: int,
) -> list[Part]:
    """Both sides of hair that falls from a parting.

    Args:
        cover: points [S, 3] and normals of what hair lies on (`studio.hair.cards.cover_of`).
        length: factor on what hangs.
        mirrored: parting on the other side.
        colour: linear.
        size: texture side.
    """
    texture = _strands(colour, rng, size, ragged=True)
    side = -1.0 if mirrored else 1.0
    out = []
    for hand in (-1.0, 1.0):
        points = _drape(skin, cover, style, length, side * style.parting, hand, rng)
        out.append(_sheet(points, texture, flipped=hand > 0))
    return out


def _drape(
    skin: Part,
    cover: tuple[np.ndarray, np.ndarray],
    style: DrapeStyle,
    length: float,
    parting: float,
    hand: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Points [across, along, 3] of one side (`hand` -1 or 1) from the face to the nape."""
    s = np.linspace(0, 1, _STRANDS)
    # Roots: from the forehead along the parting to the whorl; the last third leaves the whorl.
    back = np.clip(s / 0.66, 0, 1)
    tilt = 0.98 - 1.5 * back  # radians forward of straight up
    beside = parting * np.clip(1.25 - back, 0, 1)
    root = np.stack([np.sin(beside), np.cos(beside) * np.cos(tilt), np.cos(beside) * np.sin(tilt)])
    azimuth = hand * (style.front + (np.pi + 0.06 - style.front) * s)
    low = np.full_like(s, -0.18)
    end = np.stack([np.cos(low) * np.sin(azimuth), np.sin(low), np.cos(low) * np.cos(azimuth)])
    t = np.linspace(0, 1, _OVER)
    angle = np.arccos(np.clip((root * end).sum(0), -1, 1))[:, None]
    aim = (
        np.sin((1 - t) * angle)[..., None] * root.T[:, None]
        + np.sin(t * angle)[..., None] * end.T[:, None]
    ) / np.sin(angle)[..., None]
    rise = style.height * (0.35 + 0.65 * np.sin(np.clip(t / 0.55, 0, 1) * np.pi / 2))
    # Locks: neighbouring strands lie a little higher or lower together.
    locks = gaussian_filter1d(rng.standard_normal(_STRANDS), 1.6)
    locks = 0.012 * locks / locks.std()
    radius = _skull(skin, aim.reshape(-1, 3)).reshape(aim.shape[:2])
    over = _MIDDLE + aim * (radius + rise + locks[:, None] * t)[..., None]
    tree, normals, n = cKDTree(cover[0]), cover[1], cover[0]
    hanging = [over[:, -1]]
    inward = over[:, -1, [0, 2]] - _MIDDLE[[0, 2]]
    inward = inward / np.linalg.norm(inward, axis=1, keepdims=True)
    total = length * style.length * (1 + 0.05 * gaussian_filter1d(rng.standard_normal(72), 2.0))
    steps = max(4, min(_HANGING, int(np.ceil(total.max() / _STEP))))
    for k in range(1, steps + 1):
        p = hanging[-1].copy()
        p[:, 1] -= total / steps
        p[:, [0, 2]] -= inward * (style.inward * total * 2 * k / steps**2)[:, None]
        for _ in range(2):  # it lies on the shoulders
            _, near = tree.query(p)
            height = ((p - n[near]) * normals[near]).sum(1)
            push = np.where((height < 0.03) & (height > -0.15), 0.03 - height, 0.0)
            p = p + push[:, None] * normals[near]
        hanging.append(p)
    points = np.concatenate([over, np.stack(hanging[1:], 1)], 1)
    points[:, _OVER:] = gaussian_filter1d(points, 1.0, axis=0, mode="nearest")[:, _OVER:]
    return points


def combed_parts(
    skin: Part,
    region: np.ndarray,
    rise: np.ndarray,
    style: CombedStyle,
    mirrored: bool,
    colour: np.ndarray,
    rng: np.random.Generator,
    size: int,
) -> list[Part]:
    """Hair of `style` over part of `skin`, and its bun.

    Args:
        region: [V] density at each vertex of the skin, 0..1.
        rise: [V] share of the style's height at each vertex.
        mirrored: combed to the other side.
        colour: linear.
        size: texture side.
    """
    triangles = skin.triangles[(region[skin.triangles] > 0).any(1)]
    if not len(triangles):
        return []
    used, index = np.unique(triangles, return_inverse=True)
    scalp, normals, region = skin.positions[used], skin.normals[used], region[used]
    towards = np.array(style.towards) * [-1.0 if mirrored else 1.0, 1.0, 1.0]
    towards = towards / np.linalg.norm(towards)
    aim = scalp - _MIDDLE
    aim /= np.linalg.norm(aim, axis=1, keepdims=True)
    top = np.clip((scalp[:, 1] - 0.2) / 0.3, 0, 1)
    tall = style.height * rise[used] * (style.sides + (1 - style.sides) * top)
    full = np.clip((region - 0.35) / 0.4, 0, 1)
    uv = _polar(aim, towards)
    locks = np.interp(uv[:, 0] % 1, np.linspace(0, 1, 64), _normalised(rng.standard_normal(64)))
    tall = tall * (1 + 0.16 * locks)
    points = scalp + normals * (tall * full + 0.004)[:, None]
    sheet = Part(
        "hair",
        points,
        index.reshape(-1, 3),
        uv,
        _strands(colour, rng, size, ragged=False),
        blended=True,
        fade=full,
    )
    if not style.bun:
        return [sheet]
    radius = float(_skull(skin, towards[None])[0])
    middle = _MIDDLE + towards * (radius + style.height + 0.55 * style.bun)
    return [sheet, _bun(middle, towards, style.bun, colour, rng, size // 2)]


def _bun(
    middle: np.ndarray,
    axis: np.ndarray,
    radius: float,
    colour: np.ndarray,
    rng: np.random.Generator,
    size: int,
) -> Part:
    """A knot of wound strands around `middle`, flattened along `axis`."""
    around, up = 40, 20
    a, e = np.meshgrid(np.linspace(0, 2 * np.pi, around), np.linspace(0, np.pi, up), indexing="ij")
    side = np.cross(axis, [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    other = np.cross(axis, side)
    bumps = 1 + 0.07 * np.sin(3 * a + 5 * e) * np.sin(e)
    flat = (np.sin(e) * np.cos(a))[..., None] * side + (np.sin(e) * np.sin(a))[..., None] * other
    points = middle + radius * bumps[..., None] * (flat + 0.72 * np.cos(e)[..., None] * axis)
    part = _sheet(points, _strands(colour, rng, size, ragged=False))
    # Strands wind round the knot.
    u, v = e / np.pi + 0.15 * a / np.pi, a / (2 * np.pi)
    part.uv = np.stack([u, v], -1).reshape(-1, 2)
    part.blended = False
    return part


def _skull(skin: Part, aim: np.ndarray) -> np.ndarray:
    """Radius [N] of the head's surface, ears included, in directions `aim` [N, 3]."""
    local = skin.positions - _MIDDLE
    local = local[local[:, 1] > -0.45]
    radius = np.linalg.norm(local, axis=1)
    _, near = cKDTree(local / radius[:, None]).query(aim, k=8)
    return radius[near].max(1)


def _polar(aim: np.ndarray, towards: np.ndarray) -> np.ndarray:
    """Texture places [N, 2] of directions: u around `towards`, the same on both sides; v along."""
    ahead = np.array([0.0, 0.3, 1.0]) - towards * (towards @ [0.0, 0.3, 1.0])
    ahead /= np.linalg.norm(ahead)
    side = np.cross(towards, ahead)
    u = np.abs(np.arctan2(aim @ side, aim @ ahead)) / np.pi
    return np.stack([u, np.arccos(np.clip(aim @ towards, -1, 1)) / np.pi], -1)


def _sheet(points: np.ndarray, texture: Texture, flipped: bool = False) -> Part:
    """A part from a grid of points [across, along, 3]; u runs across, v from roots (1) to tips."""
    across, along = points.shape[:2]
    i, j = np.meshgrid(np.arange(across - 1), np.arange(along - 1), indexing="ij")
    a = (i * along + j).ravel()
    triangles = np.concatenate(
        [np.stack([a, a + along, a + 1], -1), np.stack([a + 1, a + along, a + along + 1], -1)]
    )
    if flipped:
        triangles = triangles[:, ::-1]
    flat = points.reshape(-1, 3)
    u, v = np.meshgrid(np.linspace(0, 1, across), np.linspace(1, 0, along), indexing="ij")
    uv = np.stack([0.01 + 0.98 * u, 0.005 + 0.99 * v], -1).reshape(-1, 2)
    normals = vertex_normals(flat, triangles)
    return Part("hair", flat, triangles, uv, texture, normals=normals, blended=True)


def _strands(colour: np.ndarray, rng: np.random.Generator, size: int, ragged: bool) -> Texture:
    """Strands along v; `ragged`: dark at the roots (row 0), thinning out at the tips."""
    noise = rng.standard_normal((size, size)).astype(np.float32)
    fine = _normalised(gaussian_filter(noise, (size / 10, 0.8), mode="wrap"))
    coarse = _normalised(gaussian_filter(noise, (size / 5, size / 90), mode="wrap"))
    light = np.exp(0.2 * fine + 0.17 * coarse)
    alpha = np.ones((size, size), dtype=np.float32)
    if ragged:
        v = np.linspace(0, 1, size)[:, None]
        light = light * (0.55 + 0.45 * np.clip(v / 0.05, 0, 1))
        ends = 0.95 + 0.03 * fine[:1] + 0.015 * coarse[:1]
        alpha = np.clip((ends - v) / 0.03, 0, 1) * np.ones_like(light)
    image = [encode(light[..., None] * colour), np.round(255 * alpha).astype(np.uint8)[..., None]]
    return build_mips(np.concatenate(image, -1))


def _normalised(field: np.ndarray) -> np.ndarray:
    return (field - field.mean()) / field.std()
