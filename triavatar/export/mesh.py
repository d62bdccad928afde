"""A textured triangle mesh, and where exported files put it in space."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

METRES_PER_UNIT = 0.225 / 1.02
"""A head is 1.02 world units from chin to crown in the studio's sets; a grown-up's is 0.225 m."""


@dataclass(frozen=True)
class Mesh:
    """Triangles in our world: right-handed, +y up, the subject looks along +z.

    Attributes:
        vertices: [V, 3] float32, world units or, once placed, metres.
        faces: [F, 3] int32, counter-clockwise seen from outside.
        normals: [V, 3] float32, unit, outward; or None.
        uv: [V, 2] float32 in [0, 1], u to the right, v down, or None. Corners that meet in space
            but not in the texture are vertices of their own.
        texture: sRGB, [T, T, 3] uint8, or None.
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray | None = None
    uv: np.ndarray | None = None
    texture: np.ndarray | None = None


@dataclass(frozen=True)
class Placement:
    """Similarity from world units to the exported file's metres.

    The origin of the file is the point of the bust's lowest edge below the world's own origin: the
    bust stands on the ground, and the head's turning axis stays at x = z = 0.

    Attributes:
        scale: metres per world unit.
        ground: height of the bust's lowest point in world units.
    """

    scale: float
    ground: float

    def points(self, points: np.ndarray) -> np.ndarray:
        """World units [..., 3] to metres, float32."""
        return ((points - np.array([0.0, self.ground, 0.0])) * self.scale).astype(np.float32)

    def mesh(self, mesh: Mesh) -> Mesh:
        """The mesh in metres."""
        return replace(mesh, vertices=self.points(mesh.vertices))


def place(vertices: np.ndarray, scale: float = METRES_PER_UNIT) -> Placement:
    """The placement of a mesh with these vertices [V, 3] in world units."""
    return Placement(scale, float(vertices[:, 1].min()))
