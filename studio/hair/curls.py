"""Procedural curls: coiled ribbons over a bumpy core, both solid.

Each curl is a helix of ribbon, as a telephone cord, that grows out of the scalp and droops. What
lies between the curls is closed by a core that follows the scalp. Solid parts are drawn quickly
and hide what is behind them, and coils have a shape from every side, which stacks of shells lack.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from studio.drawing.scene import Part
from studio.drawing.textures import Texture, build_mips, encode
from studio.hair.shells import azimuthal

_MIDDLE = np.array([0.0, 0.2, -0.05])  # of the head
_TONES = 16  # curls share this many tones, columns of their texture


@dataclass(frozen=True)
class CurlStyle:
    """A procedural style; lengths in world units.

    Args:
        height: how far curls reach above the scalp.
        core: share of the height that is filled.
        spacing: between the curls' roots.
        radius: of the coils.
        turns: of a coil.
        sides: of one turn.
        droop: how far curls bend down, relative to their length.
        outward: 0 grows along the skin's normal, 1 away from the head's middle.
    """

    height: float
    core: float
    spacing: float
    radius: float
    turns: float
    sides: int
    droop: float
    outward: float


CURL_STYLES = {
    "curls": CurlStyle(0.12, 0.42, 0.036, 0.02, 2.4, 9, 0.75, 0.4),
    "afro": CurlStyle(0.2, 0.66, 0.021, 0.0145, 2.4, 6, 0.15, 0.85),
}


def curl_parts(
    skin: Part,
    region: np.ndarray,
    rise: np.ndarray,
    style: CurlStyle,
    colour: np.ndarray,
    rng: np.random.Generator,
    size: int,
) -> list[Part]:
    """Core and curls of `style` over part of `skin`.

    Args:
        region: [V] density at each vertex of the skin, 0..1.
        rise: [V] share of the style's height at each vertex.
        colour: linear.
        size: texture side.
    """
    triangles = skin.triangles[(region[skin.triangles] > 0).any(1)]
    if not len(triangles):
        return []
    used, index = np.unique(triangles, return_inverse=True)
    scalp = skin.positions[used]
    triangles, region, tall = index.reshape(-1, 3), region[used], style.height * rise[used]
    radial = scalp - _MIDDLE
    radial /= np.linalg.norm(radial, axis=1, keepdims=True)
    grow = skin.normals[used] * (1 - style.outward) + radial * style.outward
    grow /= np.linalg.norm(grow, axis=1, keepdims=True)
    full = np.clip((region - 0.55) / 0.4, 0, 1)
    filled = (style.core * tall * full - 0.012 * (1 - full))[:, None]  # sinks in at the hairline
    uv = azimuthal(scalp, _MIDDLE, (region[:, None] * radial).sum(0))
    core = Part("hair", scalp + grow * filled, triangles, uv, _core_texture(colour, rng, size))
    core.normals = grow
    corners, weights = _roots(scalp, triangles, region, style.spacing, rng)

    def at_roots(values: np.ndarray) -> np.ndarray:
        return (values[corners] * weights.reshape(-1, 3, *[1] * (values.ndim - 1))).sum(1)

    start = at_roots(scalp + 0.85 * grow * filled)
    length = at_roots(tall * (1 - 0.85 * style.core * full)) * rng.uniform(0.8, 1.2, len(start))
    return [core, _coils(start, at_roots(grow), length, style, colour, rng, size)]


def _roots(
    points: np.ndarray,
    triangles: np.ndarray,
    region: np.ndarray,
    spacing: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Corners [N, 3] and weights of points spread evenly over a mesh, no two closer than `spacing`.

    They are dart throws: of two that are too close the later falls out.
    """
    a, b, c = (points[triangles[:, i]] for i in range(3))
    area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
    count = int(4 * area.sum() / spacing**2)
    chosen = rng.choice(len(triangles), size=count, p=area / area.sum())
    u, v = np.sort(rng.random((2, count)), axis=0)
    weights = np.stack([u, v - u, 1 - v], -1)
    corners = triangles[chosen]
    grown = (region[corners] * weights).sum(1) > rng.uniform(0.35, 0.75, count)
    corners, weights = corners[grown], weights[grown]
    places = (points[corners] * weights[..., None]).sum(1)
    pairs = cKDTree(places).query_pairs(spacing, output_type="ndarray")
    pairs = np.sort(pairs, axis=1)
    kept = np.ones(len(places), dtype=bool)
    for early, late in pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]:
        kept[late] &= not kept[early]
    return corners[kept], weights[kept]


def _coils(
    start: np.ndarray,
    grow: np.ndarray,
    length: np.ndarray,
    style: CurlStyle,
    colour: np.ndarray,
    rng: np.random.Generator,
    size: int,
) -> Part:
    """Helical ribbons from `start` [N, 3] along `grow` [N, 3], `length` [N] long."""
    n, steps = len(start), int(style.turns * style.sides) + 1
    t = np.linspace(0, 1, steps)[None, :, None]  # from root to tip
    aim = grow + 0.35 * rng.standard_normal((n, 3))
    aim /= np.linalg.norm(aim, axis=1, keepdims=True)
    out = length[:, None, None]
    axis = start[:, None] + out * t * aim[:, None]
    axis[..., 1] -= (style.droop * out * t**2)[..., 0]
    # Drooping curls slide down over the head, not into it.
    distance = np.linalg.norm(axis - _MIDDLE, axis=-1, keepdims=True)
    at_root = np.linalg.norm(start - _MIDDLE, axis=1)[:, None, None]
    axis = _MIDDLE + (axis - _MIDDLE) * np.maximum(1, (at_root + 0.25 * out * t) / distance)
    along = np.gradient(axis, axis=1)
    along /= np.linalg.norm(along, axis=-1, keepdims=True)
    side = np.cross(along, grow[:, None] + [0.31, 0.17, 0.23])
    side /= np.linalg.norm(side, axis=-1, keepdims=True)
    other = np.cross(along, side)
    angle = 2 * np.pi * (style.turns * t[..., 0] * rng.choice([-1, 1], (n, 1)) + rng.random((n, 1)))
    away = np.cos(angle)[..., None] * side + np.sin(angle)[..., None] * other
    bulk = np.clip(t / 0.2, 0.25, 1) * np.clip((1.15 - t) / 0.5, 0, 1)
    bulk = bulk * style.radius * rng.uniform(0.75, 1.25, (n, 1, 1))
    spine = axis + bulk * away
    # As wide as the way of one turn along the axis, but for a gap.
    width = np.minimum(0.85 * out / style.turns, 1.3 * style.radius) * np.clip(
        (1.04 - t) / 0.25, 0, 1
    )
    edges = np.stack([spine - 0.5 * width * along, spine + 0.5 * width * along], 2)
    k = np.arange(steps - 1)
    strip = np.concatenate(
        [
            np.stack([2 * k, 2 * k + 1, 2 * k + 2], -1),
            np.stack([2 * k + 1, 2 * k + 3, 2 * k + 2], -1),
        ]
    )
    triangles = strip[None] + (2 * steps * np.arange(n))[:, None, None]
    tone = rng.integers(0, _TONES, n)[:, None, None]
    u = (tone + np.array([0.06, 0.94])) / _TONES
    v = t[..., 0][..., None] * 0.5 + rng.random((n, 1, 1)) * 0.5
    uv = np.stack(np.broadcast_arrays(u, v), -1)
    # Light reaches the tips and the coils' outer sides, not the roots and insides.
    inside = np.clip(0.5 - 0.5 * (away * grow[:, None]).sum(-1, keepdims=True), 0, 1)
    dark = np.clip(0.6 * (1 - t) ** 1.5 + 0.45 * inside, 0, 0.85)
    paint = np.concatenate([np.broadcast_to(0.12 * colour, (n, steps, 3)), dark], -1)
    facing = away + 0.5 * grow[:, None]
    facing /= np.linalg.norm(facing, axis=-1, keepdims=True)

    def both(values: np.ndarray) -> np.ndarray:
        return np.repeat(values[:, :, None], 2, axis=2).reshape(-1, values.shape[-1])

    return Part(
        "hair",
        edges.reshape(-1, 3),
        triangles.reshape(-1, 3),
        uv.reshape(-1, 2),
        _ribbon_texture(colour, rng, size // 2),
        normals=both(facing),
        paint=both(paint),
        casts=False,
    )


def _core_texture(colour: np.ndarray, rng: np.random.Generator, size: int) -> Texture:
    """Dark, mottled: what is seen between curls."""
    field = gaussian_filter(rng.standard_normal((size, size)).astype(np.float32), size / 300)
    tone = colour * (0.3 * np.exp(0.5 * field / field.std()))[..., None]
    return build_mips(_opaque(tone))


def _ribbon_texture(colour: np.ndarray, rng: np.random.Generator, size: int) -> Texture:
    """Strands along v, in `_TONES` columns that are rounded off by darker edges."""
    noise = rng.standard_normal((size, size)).astype(np.float32)
    strands = gaussian_filter(noise, (size / 16, 0.8), mode="wrap")
    x = (np.arange(size) + 0.5) / size * _TONES
    edge = 1 - 0.55 * np.abs(2 * (x % 1) - 1) ** 2
    tones = np.exp(0.16 * rng.standard_normal(_TONES))[x.astype(int)]
    light = 1.25 * np.exp(0.22 * strands / strands.std()) * edge * tones
    return build_mips(_opaque(light[..., None] * colour))


def _opaque(tone: np.ndarray) -> np.ndarray:
    return np.concatenate([encode(tone), np.full((*tone.shape[:2], 1), 255, dtype=np.uint8)], -1)
