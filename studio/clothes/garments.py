"""Clothes cut from the body's own surface: T-shirts, V-necks, tank tops, roll necks, …

A cut is a level set on the body: positive inside the garment. The cloth stands off the skin, its
neckline carries a band of its own, and every open edge is turned in to the skin.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from runtime.seeds import numpy_generator
from studio.clothes.patterns import fabric
from studio.drawing.scene import Part, vertex_normals
from studio.drawing.textures import Texture, build_mips, solid_texture
from studio.hair.crop import clip_at
from studio.people.subject import Subject

_BAND = 0.04  # height of the neckband, world units
_GAP = 0.016  # cloth stands this far off the skin at the neckline
_SHOWN = 0.13  # so much cloth shows in front above the bust's cut
_LOOSE = 0.05  # and so much farther on the chest
HALF_WIDTH = 1.2  # the fabric's picture covers x in ±HALF_WIDTH …
TOP, BOTTOM = 0.15, -1.05  # … and this range of unrolled height


@dataclass(frozen=True)
class Cut:
    """A cut's neckline.

    Args:
        rise: height of the collar above the neck's base, world units.
        slope: how much the collar drops per unit of depth towards the front.
        dip: how far the front is cut out below the collar; narrow: how steeply it closes
            sideways; pointed: V rather than a bow.
        arm: |x| where the sleeveless cut ends, 0 for sleeves.
    """

    rise: float
    slope: float
    dip: float = 0.0
    narrow: float = 1.0
    pointed: bool = False
    arm: float = 0.0


CUTS = {
    "crew": Cut(0.0, 0.4),
    "vneck": Cut(0.0, 0.4, dip=0.2, narrow=1.25, pointed=True),
    "scoop": Cut(-0.03, 0.45, dip=0.1, narrow=2.2),
    "tank": Cut(-0.04, 0.45, dip=0.12, narrow=2.0, arm=0.54),
    "rollneck": Cut(0.17, 0.3),
    "boat": Cut(-0.06, 0.28),
}


def level(cut: Cut, points: np.ndarray, neck: np.ndarray) -> np.ndarray:
    """Signed distance (about) of `points` [V, 3] from the cut's edge; positive: cloth.

    Args:
        neck: [3] the neck joint.
    """
    x, z = np.abs(points[:, 0]), points[:, 2] - neck[2]
    y = points[:, 1] - neck[1]
    steep = np.sqrt(1 + cut.slope**2)
    out = (cut.rise - cut.slope * z - y) / steep
    if cut.dip:
        front = np.clip(z / 0.1, 0, 1)
        line = cut.rise - cut.slope * np.maximum(z, 0) - cut.dip
        side = cut.narrow * x if cut.pointed else cut.narrow * x**2 / 0.25
        out = np.where(
            front > 0, np.minimum(out, front * 0.8 * (line + side - y) + (1 - front) * out), out
        )
    if cut.arm:
        hole = cut.arm - 0.12 * np.clip((-0.25 - y) / 0.3, 0, 1)
        out = np.minimum(out, hole - x)
    return out


def garment_parts(
    subject: Subject,
    skin: Part,
    neck: np.ndarray,
    head_share: np.ndarray,
    lowest: float,
    size: int,
) -> tuple[list[Part], np.ndarray]:
    """The subject's own-cut garment over the whole skin of the bust.

    Args:
        skin: the bust's skin, nothing hidden.
        neck: [3] the neck joint.
        head_share: [V] share of the head's turning that each skin vertex follows.
        lowest: height at which the bust is cut, world units.
        size: side of the fabric's picture.

    Returns:
        Parts, and a mask [V] of the skin's vertices that are well hidden.
    """
    cut = CUTS[subject.clothes]
    # However long the neck, the neckline stays in the picture.
    collar = neck[1] + cut.rise - 0.33 * cut.slope
    missing = max(0.0, lowest + _SHOWN - (collar - cut.dip))
    shallower = min(missing, cut.dip)
    cut = replace(cut, dip=cut.dip - shallower, rise=cut.rise + missing - shallower)
    inside = level(cut, skin.positions, neck)
    cloth = _ease(skin, inside)
    cloth.fade = head_share.copy()  # carried through the cuts, read by `carried_share`
    body, _ = clip_at(cloth, -inside + _BAND)
    band, _ = clip_at(cloth, -inside)
    band, _ = clip_at(band, level(cut, _unlifted(band, skin), neck) - _BAND - 0.006)
    parts = fabric_halves(subject, body, neck, size)
    band.texture = _ribs(subject.clothes_trim)
    around = np.arctan2(band.positions[:, 0], band.positions[:, 2] - neck[2])
    band.uv = np.stack([np.abs(around) / np.pi, np.full(len(around), 0.5)], -1)
    band.positions = band.positions + 0.004 * band.normals
    parts += [band, _rim(band)]
    return parts, inside > _BAND + 0.05


def fabric_halves(subject: Subject, cloth: Part, neck: np.ndarray, size: int) -> list[Part]:
    """Front and back of `cloth` in the subject's fabric, which is cut and printed flat."""
    middle = neck[2] - 0.02
    out = []
    for front in (True, False):
        half = _half(cloth, middle, front)
        if not len(half.triangles):
            continue
        away = half.positions[:, 2] - middle
        unrolled = half.positions[:, 1] - 0.6 * (away if front else -away) - neck[1]
        u = 0.5 + (half.positions[:, 0] if front else -half.positions[:, 0]) / (2 * HALF_WIDTH)
        half.uv = np.stack([u, (unrolled - BOTTOM) / (TOP - BOTTOM)], -1)
        rng = numpy_generator(subject.seed, "fabric", subject.index)
        half.texture = build_mips(fabric(subject, rng, size, front))
        out.append(half)
    return out


def carried_share(part: Part) -> np.ndarray:
    """[V] share of the head's turning a garment's vertices follow; resets their fade."""
    share, part.fade = part.fade, np.ones(len(part.positions))
    return share


def _unlifted(part: Part, skin: Part) -> np.ndarray:
    """Positions on the skin below a clipped cloth part, which kept them as its paint."""
    return part.paint[:, :3]


def _ease(skin: Part, inside: np.ndarray) -> Part:
    """The skin lifted to where the cloth hangs: looser on the body, smoothed over its hollows."""
    merged, index = np.unique(skin.source, return_inverse=True)
    first = np.zeros(len(merged), dtype=np.int64)
    first[index] = np.arange(len(index))
    triangles = index[skin.triangles]
    lift = _GAP + _LOOSE * np.clip((inside - 0.1) / 0.35, 0, 1)
    points = (skin.positions + lift[:, None] * skin.normals)[first]
    n = len(points)
    rows = triangles[:, [0, 1, 2, 1, 2, 0]].ravel()
    columns = triangles[:, [1, 2, 0, 0, 1, 2]].ravel()
    joined = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(n, n))
    joined.data[:] = 1.0
    average = sparse.diags(1 / np.maximum(np.asarray(joined.sum(1)).ravel(), 1)) @ joined
    base, normals = skin.positions[first], skin.normals[first]
    share = np.clip((inside[first] - 0.02) / 0.1, 0, 1)[:, None]
    for _ in range(14):
        points = points + 0.7 * share * (average @ points - points)
        height = ((points - base) * normals).sum(1)
        points = points + np.maximum(_GAP - height, 0)[:, None] * normals
    smooth = vertex_normals(points, triangles)
    return Part(
        "clothes",
        points[index],
        skin.triangles,
        np.zeros((len(index), 2)),
        solid_texture((0.5, 0.5, 0.5)),
        normals=smooth[index],
        paint=np.concatenate([skin.positions, np.zeros((len(index), 1))], -1),
        source=skin.source,
    )


def _half(body: Part, middle: float, front: bool) -> Part:
    depth = body.positions[body.triangles, 2].mean(1)
    chosen = body.triangles[(depth >= middle) == front]
    used, index = np.unique(chosen, return_inverse=True)
    n = len(used)
    return Part(
        "clothes",
        body.positions[used],
        index.reshape(-1, 3),
        np.zeros((n, 2)),
        body.texture,
        normals=body.normals[used],
        fade=body.fade[used],
        source=body.source[used],
    )


def _ribs(colour: tuple[float, float, float]) -> Texture:
    """Fine ribs running across a band."""
    stripes = 0.93 + 0.07 * np.sin(2 * np.pi * 60 * np.arange(512) / 512)
    rgb = np.clip(np.array(colour)[None, :] * stripes[:, None], 0, 1)
    image = np.full((4, 512, 4), 255, dtype=np.uint8)
    image[..., :3] = np.round(255 * rgb)
    return build_mips(image)


def _rim(band: Part) -> Part:
    """Turn the open edges of `band` in to the skin, so that no edge shows as a sheet."""
    band.paint = np.zeros((len(band.positions), 4))
    t = band.triangles
    sides = np.concatenate([t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]])
    _, place = np.unique(np.round(band.positions, 6), axis=0, return_inverse=True)
    place = place.reshape(-1)
    key = np.sort(place[sides], axis=1)
    _, which, count = np.unique(key, axis=0, return_inverse=True, return_counts=True)
    edge = sides[count[which.reshape(-1)] == 1]
    used, index = np.unique(edge, return_inverse=True)
    index = index.reshape(-1, 2)
    n = len(used)
    outer = band.positions[used]
    inner = outer - 1.6 * _GAP * band.normals[used]
    a, b = index[:, 0], index[:, 1]
    triangles = np.concatenate([np.stack([a, b, b + n], -1), np.stack([a, b + n, a + n], -1)])
    return Part(
        "clothes",
        np.concatenate([outer, inner]),
        triangles,
        np.tile(band.uv[used], (2, 1)),
        band.texture,
        normals=np.tile(band.normals[used], (2, 1)),
        fade=np.tile(band.fade[used], 2),
    )
