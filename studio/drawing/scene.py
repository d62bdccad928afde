"""Renderable geometry: parts with baked light, and the flat arrays the rasteriser reads."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from studio.drawing.obj import PolyMesh
from studio.drawing.textures import Texture

LABELS = ("background", "skin", "hair", "eyes", "mouth", "clothes", "accessory")


@dataclass
class Part:
    """One textured triangle mesh.

    Args:
        label: one of LABELS.
        positions: [V, 3] world.
        triangles: [T, 3].
        uv: [V, 2], origin bottom left.
        texture: its colour and alpha.
        normals: [V, 3] unit.
        paint: [V, 4] colour (linear) and cover mixed over the texture.
        light: [V, 3] baked factor on the linear colour.
        fade: [V] factor on the texture's alpha; only for blended parts.
        source: [V] vertex index in the mesh the part was made from.
        blended: whether alpha is blended (else the part is solid).
        casts: whether the part throws shadows.
        sheer: whether a blended part fades where it is seen edge-on, as sheets of strands do;
            their edges would break up into dots.
    """

    label: str
    positions: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    texture: Texture
    normals: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    paint: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    light: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    fade: np.ndarray = field(default_factory=lambda: np.zeros(0))
    source: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    blended: bool = False
    casts: bool = True
    sheer: bool = False

    def __post_init__(self) -> None:
        n = len(self.positions)
        if len(self.normals) != n:
            self.normals = vertex_normals(self.positions, self.triangles)
        if len(self.paint) != n:
            self.paint = np.zeros((n, 4))
        if len(self.light) != n:
            self.light = np.ones((n, 3))
        if len(self.fade) != n:
            self.fade = np.ones(n)

    @property
    def shade(self) -> np.ndarray:
        """[V, 4] light and fade."""
        return np.concatenate([self.light, self.fade[:, None]], 1)


def triangulate(mesh: PolyMesh) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split vertices at texture seams and quads into triangles.

    Returns:
        source [V] (index into mesh.vertices), uv [V, 2], triangles [T, 3] (into source).
    """
    faces, face_uv = mesh.faces, mesh.face_uv
    quad = faces[:, 3] >= 0
    corners = [faces[:, [0, 1, 2]], faces[quad][:, [0, 2, 3]]]
    corners_uv = [face_uv[:, [0, 1, 2]], face_uv[quad][:, [0, 2, 3]]]
    pairs = np.stack([np.concatenate(corners), np.concatenate(corners_uv)], -1).reshape(-1, 2)
    key = pairs[:, 0] * (len(mesh.uv) + 1) + pairs[:, 1]
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    unique = pairs[first]
    return unique[:, 0], mesh.uv[unique[:, 1]], inverse.reshape(-1, 3)


def vertex_normals(positions: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Area-weighted unit vertex normals [V, 3]; zero where no triangle touches."""
    a, b, c = (positions[triangles[:, i]] for i in range(3))
    face = np.cross(b - a, c - a)
    out = np.zeros((len(positions), 3))
    for i in range(3):
        for axis in range(3):
            out[:, axis] += np.bincount(
                triangles[:, i], weights=face[:, axis], minlength=len(positions)
            )
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def part_from_mesh(
    mesh: PolyMesh, positions: np.ndarray, label: str, texture: Texture, **settings
) -> Part:
    """A part from a polygon mesh with its vertices moved to `positions` [V, 3].

    Normals are smooth across texture seams.
    """
    source, uv, triangles = triangulate(mesh)
    normals = vertex_normals(positions, source[triangles])[source]
    return Part(
        label, positions[source], triangles, uv, texture, normals=normals, source=source, **settings
    )


@dataclass
class Scene:
    """Parts flattened for the rasteriser; float32, solid parts first.

    Args:
        positions [V, 3], uv [V, 2], paint [V, 4], shade [V, 4] (light, fade), normals [V, 3].
        triangles [T, 3] int32; triangle_texture [T] int32; triangle_label [T] uint8;
            triangle_sheer [T] bool.
        n_solid: triangles below this index are solid, the rest is blended.
        texels [N, 4] uint8: all mips of all textures; table [K, 16, 3] int64: offset, W, H of
            each level; n_levels [K].
    """

    positions: np.ndarray
    uv: np.ndarray
    paint: np.ndarray
    shade: np.ndarray
    normals: np.ndarray
    triangles: np.ndarray
    triangle_texture: np.ndarray
    triangle_label: np.ndarray
    triangle_sheer: np.ndarray
    n_solid: int
    texels: np.ndarray
    table: np.ndarray
    n_levels: np.ndarray


def flatten(parts: list[Part]) -> Scene:
    """Concatenate `parts`."""
    ordered = [p for p in parts if not p.blended] + [p for p in parts if p.blended]
    starts = np.cumsum([0] + [len(p.positions) for p in ordered])
    triangles = [p.triangles + start for p, start in zip(ordered, starts, strict=False)]
    textures = {id(p.texture): p.texture for p in ordered}
    slots = {key: i for i, key in enumerate(textures)}
    table = np.zeros((len(textures), 16, 3), dtype=np.int64)
    n_levels = np.zeros(len(textures), dtype=np.int64)
    texels = []
    offset = 0
    for i, texture in enumerate(textures.values()):
        n_levels[i] = len(texture.levels)
        for k, level in enumerate(texture.levels):
            table[i, k] = offset, level.shape[1], level.shape[0]
            texels.append(level.reshape(-1, 4))
            offset += len(texels[-1])

    def joined(name: str, dtype=np.float32) -> np.ndarray:
        return np.ascontiguousarray(
            np.concatenate([getattr(p, name) for p in ordered]), dtype=dtype
        )

    counts = [len(p.triangles) for p in ordered]
    return Scene(
        positions=joined("positions"),
        uv=joined("uv"),
        paint=joined("paint"),
        shade=joined("shade"),
        normals=joined("normals"),
        triangles=np.ascontiguousarray(np.concatenate(triangles), dtype=np.int32),
        triangle_texture=np.repeat([slots[id(p.texture)] for p in ordered], counts).astype(
            np.int32
        ),
        triangle_label=np.repeat([LABELS.index(p.label) for p in ordered], counts).astype(np.uint8),
        triangle_sheer=np.repeat([p.sheer for p in ordered], counts),
        n_solid=int(sum(len(p.triangles) for p in ordered if not p.blended)),
        texels=np.concatenate(texels),
        table=table,
        n_levels=n_levels,
    )
