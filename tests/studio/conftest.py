"""Independent references for the rasteriser: ray casting by brute force, tiny meshes."""

from types import SimpleNamespace

import numpy as np
import pytest

from studio.drawing.obj import PolyMesh
from studio.drawing.scene import Part
from studio.drawing.textures import Texture, solid_texture


def cast(origins, directions, vertices, triangles):
    """Nearest hit distance [R] of rays with triangles (Möller and Trumbore 1997); inf: none."""
    a = vertices[triangles[:, 0]]
    e1 = vertices[triangles[:, 1]] - a
    e2 = vertices[triangles[:, 2]] - a
    nearest = np.full(len(origins), np.inf)
    for i, (o, d) in enumerate(zip(origins, directions, strict=True)):
        p = np.cross(d, e2)
        det = (e1 * p).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            s = o - a
            u = (s * p).sum(1) / det
            q = np.cross(s, e1)
            v = (q * d).sum(1) / det
            t = (e2 * q).sum(1) / det
        hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0) & (np.abs(det) > 1e-12)
        if hit.any():
            nearest[i] = t[hit].min()
    return nearest


def blob(seed=0, n=14):
    """A bumpy closed sphere: vertices [V, 3], triangles [T, 3]."""
    rng = np.random.default_rng(seed)
    theta, phi = np.meshgrid(
        np.linspace(0.05, np.pi - 0.05, n),
        np.linspace(0, 2 * np.pi, 2 * n, endpoint=False),
        indexing="ij",
    )
    r = 0.6 + 0.08 * rng.standard_normal(theta.shape)
    points = np.stack(
        [r * np.sin(theta) * np.cos(phi), r * np.cos(theta), r * np.sin(theta) * np.sin(phi)], -1
    ).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(n - 1), np.arange(2 * n), indexing="ij")
    k = (j + 1) % (2 * n)
    a, b, c, d = i * 2 * n + j, i * 2 * n + k, (i + 1) * 2 * n + k, (i + 1) * 2 * n + j
    quads = np.stack([a, b, c, d], -1).reshape(-1, 4)
    return points, np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def plane(z, rgba, half=0.5, label="skin", blended=False):
    """A square facing +z at depth z, of one sRGB colour (0..1) and alpha."""
    positions = np.array([[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]])
    texel = np.array([[[round(255 * c) for c in rgba]]], dtype=np.uint8)
    return Part(
        label,
        positions,
        np.array([[0, 1, 2], [0, 2, 3]]),
        (positions[:, :2] / half + 1) / 2,
        Texture([texel]),
        blended=blended,
    )


def solid(positions, triangles, colour=(1.0, 1.0, 1.0)):
    """A part of one colour, fully lit."""
    return Part(
        "skin", positions, triangles, np.full((len(positions), 2), 0.5), solid_texture(colour)
    )


def cube():
    """A closed quad mesh: the cube [-1, 1]³."""
    v = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=float)
    faces = np.array(
        [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    )
    return PolyMesh(v, np.zeros((1, 2)), faces, np.zeros_like(faces))


@pytest.fixture(scope="session")
def reference():
    """Ray casting and tiny meshes."""
    return SimpleNamespace(cast=cast, blob=blob, plane=plane, solid=solid, cube=cube)
