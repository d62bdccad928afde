"""Hats shaped on the subject's own skull: beanie, cap, bucket hat, sun hat, fedora, headband."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import cKDTree

from runtime.seeds import numpy_generator
from studio.drawing.scene import Part, vertex_normals
from studio.drawing.textures import build_mips, encode, srgb_to_linear
from studio.people.subject import Subject

_MIDDLE = np.array([0.0, 0.2, -0.05])  # of the skull, world units
_AROUND, _UP = 96, 20


@dataclass(frozen=True)
class HatStyle:
    """A hat.

    Args:
        front, back: height of its lower edge over the forehead and at the nape, world units.
        gap: of the crown over the skull, which leaves room for flattened hair.
        upright: 0 follows the skull, 1 stands straight up to a flat top.
        brim: how far a brim reaches out; drop: how far it falls; visor: brim in front only.
        cuff: height of a folded edge; open_top: a band without a crown.
    """

    front: float
    back: float
    gap: float
    upright: float = 0.0
    brim: float = 0.0
    drop: float = 0.0
    visor: bool = False
    cuff: float = 0.0
    open_top: bool = False


HATS = {
    "beanie": HatStyle(0.35, -0.02, 0.036, cuff=0.17),
    "cap": HatStyle(0.37, 0.1, 0.045, upright=0.2, brim=0.3, drop=0.05, visor=True),
    "bucket": HatStyle(0.38, 0.1, 0.04, upright=0.55, brim=0.17, drop=0.13),
    "sunhat": HatStyle(0.39, 0.12, 0.05, upright=0.35, brim=0.38, drop=0.05),
    "fedora": HatStyle(0.39, 0.14, 0.04, upright=0.6, brim=0.24, drop=-0.01),
    "headband": HatStyle(0.42, 0.08, 0.022, cuff=0.13, open_top=True),
}


class HatShape:
    """A hat's inner surface on a skull.

    Args:
        style: the hat.
        skin: the bust's skin; ears: source indices of its ears.
    """

    def __init__(self, style: HatStyle, skin: Part, ears: np.ndarray):
        self.style = style
        p = skin.positions[~np.isin(skin.source, ears)]
        local = p[p[:, 1] > -0.15] - _MIDDLE
        radius = np.linalg.norm(local, axis=1)
        tree = cKDTree(local / radius[:, None])
        self._azimuth = 2 * np.pi * np.arange(_AROUND) / _AROUND
        self._elevation = np.linspace(-0.5, np.pi / 2, 40)
        e, a = np.meshgrid(self._elevation, self._azimuth, indexing="ij")
        _, near = tree.query(_direction(a, e).reshape(-1, 3), k=8)
        support = radius[near].max(1).reshape(e.shape)
        smooth = gaussian_filter1d(support, 1.5, axis=0, mode="nearest")
        self._support = gaussian_filter1d(smooth, 2.5, axis=1, mode="wrap") + 0.006

    def edge(self, points: np.ndarray) -> np.ndarray:
        """Height of the lower edge at `points` [V, 3]."""
        share = np.clip(0.5 + 0.5 * (points[:, 2] - _MIDDLE[2]) / 0.5, 0, 1)
        return self.style.back + (self.style.front - self.style.back) * share

    def radius(self, azimuth: np.ndarray, elevation: np.ndarray) -> np.ndarray:
        """Radius of the skull's hull in these directions (radians)."""
        row = np.interp(elevation, self._elevation, np.arange(len(self._elevation)))
        column = (azimuth / (2 * np.pi) % 1) * _AROUND
        r0 = np.clip(row.astype(int), 0, len(self._elevation) - 2)
        c0 = column.astype(int) % _AROUND
        fr, fc = row - r0, column - np.floor(column)
        s, c1 = self._support, (c0 + 1) % _AROUND
        low = s[r0, c0] * (1 - fc) + s[r0, c1] * fc
        high = s[r0 + 1, c0] * (1 - fc) + s[r0 + 1, c1] * fc
        return low * (1 - fr) + high * fr

    def flatten(self, points: np.ndarray) -> np.ndarray:
        """Press hair at `points` [V, 3] under the hat; hair well below its edge stays."""
        local = points - _MIDDLE
        r = np.linalg.norm(local, axis=1)
        azimuth = np.arctan2(local[:, 0], local[:, 2])
        elevation = np.arcsin(np.clip(local[:, 1] / np.maximum(r, 1e-9), -1, 1))
        room = (0.2 if self.style.open_top else 0.55) * self.style.gap
        most = self.radius(azimuth, elevation) + room
        height = points[:, 1] - self.edge(points)
        share = np.clip((height + 0.16) / 0.16, 0, 1)
        if self.style.open_top:  # only what lies under the band
            share = share * np.clip((self.style.cuff + 0.1 - height) / 0.1, 0, 1)
        share = share * share * (3 - 2 * share)
        limit = np.where(r > most, most, r)
        return _MIDDLE + local * ((r + share * (limit - r)) / np.maximum(r, 1e-9))[:, None]


def hat_parts(subject: Subject, shape: HatShape, size: int) -> list[Part]:
    """The subject's hat (unposed), with a trim in its second colour."""
    style = shape.style
    a = np.concatenate([shape._azimuth, [2 * np.pi]])
    low = _edge_elevation(shape, a)
    rng = numpy_generator(subject.seed, "hat", subject.index)
    knitted = style.cuff > 0
    cloth = _cloth(subject, rng, size, knitted)
    parts = []
    if not style.open_top:
        t = np.linspace(0, 1, _UP)[:, None]
        e = low[None] + (np.pi / 2 - low[None]) * t
        parts.append(_sheet(_crown(shape, a[None] + 0 * e, e, t), cloth, (0.0, 1.0)))
    if style.cuff:
        parts.append(_cuff(shape, a, low, subject, rng, size))
    if style.brim:
        parts += _brim(shape, a, low, cloth)
        if not style.visor:
            parts.append(_ribbon(shape, a, low, subject))
    return parts


def _direction(azimuth: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    c = np.cos(elevation)
    return np.stack([c * np.sin(azimuth), np.sin(elevation), c * np.cos(azimuth)], -1)


def _edge_elevation(shape: HatShape, azimuth: np.ndarray) -> np.ndarray:
    """Elevation at which the skull's hull meets the hat's lower edge."""
    e = np.zeros_like(azimuth)
    for _ in range(12):
        p = _MIDDLE + (shape.radius(azimuth, e) + shape.style.gap)[:, None] * _direction(azimuth, e)
        e = e + (shape.edge(p) - p[:, 1]) / 0.7
        e = np.clip(e, -0.45, 1.2)
    return e


def _crown(shape: HatShape, a: np.ndarray, e: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Points of the crown at azimuth and elevation [m, n]; t 0 at the edge, 1 on top."""
    style = shape.style
    gap = style.gap * (0.55 + 0.45 * np.clip(t / 0.15, 0, 1)) + (0.05 * t**2 if style.cuff else 0)
    p = _MIDDLE + (shape.radius(a, e) + gap)[..., None] * _direction(a, e)
    if style.upright:
        # Blend towards a wall that rises from the edge to a flat, slightly rounded top.
        foot = p[:1] - _MIDDLE
        top = p[..., 1].max() + 0.005
        rise = np.clip(t / 0.62, 0, 1)
        inward = np.clip((t - 0.55) / 0.45, 0, 1)
        wall = foot.copy().repeat(len(t), 0)
        wall[..., [0, 2]] *= ((1 - 0.2 * rise) * (1 - inward))[..., None]
        wall[..., 1] = (
            foot[..., 1] + (top - _MIDDLE[1] - foot[..., 1]) * np.sin(0.5 * np.pi * rise) ** 1.2
        )
        wall = wall + _MIDDLE
        if style.drop < 0:  # a fedora's crease along the middle
            wall[..., 1] -= (
                0.07 * np.clip(inward * 1.6, 0, 1) * np.exp(-((wall[..., 0] / 0.16) ** 2))
            )
        mixed = (1 - style.upright) * p + style.upright * wall
        # Never closer to the skull than half the gap.
        local = mixed - _MIDDLE
        r = np.linalg.norm(local, axis=-1)
        az = np.arctan2(local[..., 0], local[..., 2])
        el = np.arcsin(np.clip(local[..., 1] / r, -1, 1))
        least = shape.radius(az, el) + 0.75 * style.gap
        p = _MIDDLE + local * (np.maximum(r, least) / r)[..., None]
    return p


def _sheet(points: np.ndarray, texture, v_range: tuple[float, float]) -> Part:
    """A part from a grid of points [m, n, 3] closed along n; u runs round, v along m."""
    m, n = points.shape[:2]
    i, j = np.meshgrid(np.arange(m - 1), np.arange(n - 1), indexing="ij")
    a, b = (i * n + j).ravel(), (i * n + j + 1).ravel()
    c, d = a + n, b + n
    triangles = np.concatenate([np.stack([a, b, d], -1), np.stack([a, d, c], -1)])
    v, u = np.meshgrid(np.linspace(*v_range, m), np.linspace(0, 1, n), indexing="ij")
    positions = points.reshape(-1, 3)
    ring = np.arange(m * n).reshape(m, n).copy()
    ring[:, -1] = ring[:, 0]
    normals = vertex_normals(positions, ring.ravel()[triangles])[ring.ravel()]
    return Part(
        "accessory",
        positions,
        triangles,
        np.stack([u.ravel(), v.ravel()], -1),
        texture,
        normals=normals,
    )


def _cuff(shape: HatShape, a: np.ndarray, low: np.ndarray, subject: Subject, rng, size) -> Part:
    """A rounded band outside the crown's edge, closed at both rims."""
    style = shape.style
    s = np.linspace(0, 2 * np.pi, 17)[:, None]
    thick = 0.016 if style.open_top else 0.024
    # A flattened ring: height along the skull, thickness away from it.
    e = low[None] + style.cuff * (0.5 - 0.5 * np.cos(s)) / 0.75 - 0.02
    out = 0.5 * style.gap * (0 if style.open_top else 1) + thick * (0.6 + np.sin(s))
    az = a[None] + 0 * e
    points = _MIDDLE + (shape.radius(az, e) + out)[..., None] * _direction(az, e)
    trim = _cloth(subject, rng, size, True, subject.hat_trim)
    # The ring is drawn inside out for one half: both sides are visible, normals point outward.
    return _outward(_sheet(points, trim, (0.0, 0.35)))


def _outward(part: Part) -> Part:
    away = part.positions - _MIDDLE
    flip = (part.normals * away).sum(1) < -0.3 * np.linalg.norm(away, axis=1)
    if flip.mean() > 0.5:
        part.normals = -part.normals
    return part


def _brim(shape: HatShape, a: np.ndarray, low: np.ndarray, cloth) -> list[Part]:
    """Upper side, edge and lower side of the brim as one closed sheet."""
    style = shape.style
    foot = _crown(shape, a[None], low[None], np.zeros((1, 1)))[0]
    flat = foot - _MIDDLE
    flat[:, 1] = 0
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    reach = np.full(len(a), style.brim)
    if style.visor:
        side = np.abs((a + np.pi) % (2 * np.pi) - np.pi)
        reach = style.brim * np.clip(np.cos(side * 1.4), 0, 1) ** 0.6 * (side < 1.12)
        flat = np.stack([0.45 * flat[:, 0], 0 * flat[:, 1], flat[:, 2]], -1)
    s = np.array([-0.06, 0.25, 0.5, 0.75, 0.95, 1.0, 1.0, 0.95, 0.5, -0.06])[:, None]
    lift = 0.012 * np.array([1, 1, 1, 1, 1, 0.5, -0.5, -1, -1, -1])[:, None]
    # Visors bend down at their sides, other brims fall evenly.
    bend = 0.35 * np.abs(flat[:, 0]) ** 2 if style.visor else 0.0
    points = foot[None] + (s * reach[None])[..., None] * flat[None]
    points[..., 1] += lift - style.drop * s * np.abs(s) * (reach[None] / style.brim) - bend * s
    part = _sheet(points, cloth, (0.0, 0.3))
    if style.visor:
        away = np.repeat((reach > 1e-6)[None], len(s), 0).ravel()
        part.triangles = part.triangles[away[part.triangles].any(1)]
    upper = np.repeat(np.arange(len(s)) < 6, len(a))
    up = np.where(part.normals[:, 1] > 0, 1.0, -1.0) * np.where(upper, 1.0, -1.0)
    part.normals = part.normals * up[:, None]
    return [part]


def _ribbon(shape: HatShape, a: np.ndarray, low: np.ndarray, subject: Subject) -> Part:
    """A ribbon round the foot of the crown."""
    t = np.linspace(0.0, 0.16, 5)[:, None]
    e = low[None] + (np.pi / 2 - low[None]) * t
    points = _crown(shape, a[None] + 0 * e, e, t)
    away = points - _MIDDLE
    away[..., 1] = 0
    away /= np.linalg.norm(away, axis=-1, keepdims=True)
    rgb = np.array([*(round(255 * c) for c in subject.hat_trim), 255], dtype=np.uint8)
    return _sheet(points + 0.01 * away, build_mips(np.tile(rgb, (4, 4, 1))), (0.0, 1.0))


def _cloth(subject: Subject, rng: np.random.Generator, size: int, knitted: bool, colour=None):
    """Knitted ribs, or woven cloth with seams between six panels."""
    h, w = size // 2, size
    u = ((np.arange(w) + 0.5) / w)[None, :] + np.zeros((h, 1))
    v = 1 - ((np.arange(h) + 0.5) / h)[:, None] + np.zeros((1, w))
    base = srgb_to_linear(np.array(colour or subject.hat_colour))
    light = 1 + 0.04 * rng.standard_normal((h, w))
    if knitted:
        light = light * (0.86 + 0.14 * np.abs(np.sin(np.pi * 56 * u)))
        light = light * (0.95 + 0.05 * np.sin(2 * np.pi * 60 * v))
    elif subject.hat == "cap":
        seam = np.abs((6 * u + 0.5) % 1 - 0.5) / 6
        light = light * (1 - 0.3 * np.exp(-((seam / 0.0025) ** 2)))
    elif subject.hat == "sunhat":
        light = light * (0.88 + 0.12 * np.sin(2 * np.pi * (80 * v)) * np.sin(2 * np.pi * 90 * u))
    colours = base * light[..., None]
    if knitted and colour is None and subject.index % 3 == 0:
        band = np.abs(v - 0.45) < 0.09
        colours = np.where(
            band[..., None], srgb_to_linear(np.array(subject.hat_trim)) * light[..., None], colours
        )
    rgb = encode(colours)
    return build_mips(np.concatenate([rgb, np.full((h, w, 1), 255, dtype=np.uint8)], -1))
