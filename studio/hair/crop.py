"""Cutting a figure to a bust with planes, and closing the cuts."""

from __future__ import annotations

import numpy as np

from studio.drawing.scene import Part
from studio.drawing.textures import solid_texture


def clip_part(part: Part, normal: np.ndarray, offset: float) -> tuple[Part, np.ndarray]:
    """Keep the side `normal · p <= offset` of `part`.

    Returns:
        The clipped part (attributes interpolated) and the cut's segments [S, 2, 3].
    """
    return clip_at(part, part.positions @ normal - offset)


def clip_at(part: Part, distance: np.ndarray) -> tuple[Part, np.ndarray]:
    """Keep where `distance` [V] <= 0; as `clip_part`, for any level set."""
    inside = distance <= 0
    count = inside[part.triangles].sum(1)
    kept = part.triangles[count == 3]
    mixed = part.triangles[(count == 1) | (count == 2)]
    if not len(mixed):
        return _reindexed(part, kept), np.zeros((0, 2, 3))
    alone = inside[mixed].sum(1) == 1
    # Turn each triangle so that corner 0 is the one that differs from the other two.
    odd = np.argmax(inside[mixed] == alone[:, None], axis=1)
    rows = np.arange(len(mixed))
    a, b, c = (mixed[rows, (odd + k) % 3] for k in range(3))
    extra = [(a, b), (a, c)]
    base = len(part.positions)
    ab, ac = base + rows, base + len(mixed) + rows
    tri_alone = np.stack([a, ab, ac], -1)[alone]
    pair = ~alone
    tri_pair = np.concatenate([np.stack([ab, b, c], -1)[pair], np.stack([ab, c, ac], -1)[pair]])
    first = np.concatenate([e[0] for e in extra])
    second = np.concatenate([e[1] for e in extra])
    t = (distance[first] / (distance[first] - distance[second]))[:, None]

    def blended(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, values[first] * (1 - t) + values[second] * t])

    source = (
        np.concatenate(
            [part.source, np.where(t[:, 0] < 0.5, part.source[first], part.source[second])]
        )
        if len(part.source)
        else part.source
    )
    grown = Part(
        part.label,
        blended(part.positions),
        part.triangles,
        blended(part.uv),
        part.texture,
        normals=blended(part.normals),
        paint=blended(part.paint),
        light=blended(part.light),
        fade=blended(part.fade[:, None])[:, 0],
        source=source,
        blended=part.blended,
        casts=part.casts,
        sheer=part.sheer,
    )
    segments = np.stack([grown.positions[ab], grown.positions[ac]], 1)
    triangles = np.concatenate([kept, tri_alone, tri_pair])
    return _reindexed(grown, triangles), segments


def _reindexed(part: Part, triangles: np.ndarray) -> Part:
    """`part` with only `triangles` and the vertices they use."""
    used, index = np.unique(triangles, return_inverse=True)
    return Part(
        part.label,
        part.positions[used],
        index.reshape(-1, 3),
        part.uv[used],
        part.texture,
        normals=part.normals[used],
        paint=part.paint[used],
        light=part.light[used],
        fade=part.fade[used],
        source=part.source[used] if len(part.source) else part.source,
        blended=part.blended,
        casts=part.casts,
        sheer=part.sheer,
    )


def crop(parts: list[Part], planes: list[tuple[np.ndarray, float]]) -> list[Part]:
    """Clip all parts by all planes and close the cuts through skin and clothes."""
    caps = []
    for normal, offset in planes:
        segments, colours = [], []
        clipped = []
        for part in parts:
            part, cut = clip_part(part, normal, offset)
            if len(part.triangles):
                clipped.append(part)
            if part.label in ("skin", "clothes") and not part.blended and len(cut):
                segments.append(cut)
                if part.label == "clothes":
                    colours.append(_mean_colour(part))
        parts = clipped
        if segments:
            colour = np.mean(colours, axis=0) if colours else np.array([0.3, 0.3, 0.32])
            caps.append((np.concatenate(segments), normal, offset, colour))
    out = list(parts)
    for segments, normal, offset, colour in caps:
        cap = _cap(segments, normal, offset, colour)
        for other_normal, other_offset in planes:
            if other_normal is not normal and len(cap.triangles):
                cap, _ = clip_part(cap, other_normal, other_offset + 1e-6)
        if len(cap.triangles):
            out.append(cap)
    return out


def _mean_colour(part: Part) -> np.ndarray:
    """Mean sRGB colour [3] of the texels a part's vertices touch."""
    texels = part.texture.levels[0]
    h, w = texels.shape[:2]
    x = np.clip((part.uv[:, 0] * w).astype(int), 0, w - 1)
    y = np.clip(((1 - part.uv[:, 1]) * h).astype(int), 0, h - 1)
    return texels[y, x, :3].mean(0) / 255


def _cap(
    segments: np.ndarray, normal: np.ndarray, offset: float, colour: np.ndarray, n: int = 160
) -> Part:
    """A fan that fills the outermost outline of `segments` as seen from their middle."""
    axis = np.array([0.0, 0.0, 1.0]) if abs(normal[2]) < 0.9 else np.array([0.0, 1.0, 0.0])
    u = np.cross(axis, normal)
    u /= np.linalg.norm(u)
    v = np.cross(normal, u)
    flat = np.stack([segments @ u, segments @ v], -1)
    middle = 0.5 * (flat.min((0, 1)) + flat.max((0, 1)))
    p = flat[:, 0] - middle
    q = flat[:, 1] - middle
    # Besides evenly spread rays, one on either side of every corner, so that corners stay sharp.
    corner = np.arctan2(*np.concatenate([p, q]).T[::-1])
    angle = 2 * np.pi * (np.arange(n) + 0.5) / n
    angle = np.sort(np.concatenate([angle, corner - 1e-4, corner + 1e-4]) % (2 * np.pi))
    n = len(angle)
    ray = np.stack([np.cos(angle), np.sin(angle)], -1)
    edge = q - p
    cross_edge = ray[:, None, 0] * edge[None, :, 1] - ray[:, None, 1] * edge[None, :, 0]
    cross_edge = np.where(np.abs(cross_edge) < 1e-12, 1e-12, cross_edge)
    along = (p[:, 0] * edge[:, 1] - p[:, 1] * edge[:, 0])[None] / cross_edge
    place = (p[None, :, 0] * ray[:, None, 1] - p[None, :, 1] * ray[:, None, 0]) / cross_edge
    hit = (place >= -1e-6) & (place <= 1 + 1e-6) & (along > 0)
    radius = np.where(hit, along, 0.0).max(1)
    known = radius > 0
    if known.sum() >= 3:
        radius = np.interp(angle, angle[known], radius[known], period=2 * np.pi)
    ring = middle + radius[:, None] * ray
    points = np.concatenate([middle[None], ring])
    positions = points[:, :1] * u + points[:, 1:] * v + offset * normal
    i = np.arange(n)
    triangles = np.stack([np.zeros(n, dtype=np.int64), 1 + i, 1 + (i + 1) % n], -1)
    n_points = len(positions)
    return Part(
        "clothes",
        positions,
        triangles,
        np.full((n_points, 2), 0.5),
        solid_texture(tuple(float(c) for c in np.clip(colour, 0, 1))),
        normals=np.repeat(normal[None], n_points, 0),
        light=np.full((n_points, 3), 0.45 + 0.25 * abs(normal[0])),
    )
