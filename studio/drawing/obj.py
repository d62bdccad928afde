"""Wavefront OBJ reading for polygon meshes with texture coordinates."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from runtime.errors import UserError


@dataclass
class PolyMesh:
    """A mesh of triangles and quads.

    Args:
        vertices: [V, 3] positions.
        uv: [T, 2] texture coordinates, origin bottom left.
        faces: [F, 4] vertex indices; the last is -1 for a triangle.
        face_uv: [F, 4] texture-coordinate indices, laid out as `faces`.
        groups: group name -> [k] sorted vertex indices used by the group's faces.
        group_faces: group name -> [n] face indices.
    """

    vertices: np.ndarray
    uv: np.ndarray
    faces: np.ndarray
    face_uv: np.ndarray
    groups: dict[str, np.ndarray] = field(default_factory=dict)
    group_faces: dict[str, np.ndarray] = field(default_factory=dict)

    def select(self, keep: np.ndarray) -> PolyMesh:
        """The same mesh with only the faces where `keep` [F] (bool) holds."""
        return PolyMesh(self.vertices, self.uv, self.faces[keep], self.face_uv[keep])


def read_obj(path: Path) -> PolyMesh:
    """Read an OBJ file; faces of more than four corners are split into triangles.

    Raises:
        UserError: the file is missing, damaged or has no faces.
    """
    try:
        return _parse(path.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise UserError(f"mesh {path} cannot be read: {error.strerror}") from error
    except (ValueError, IndexError):
        raise UserError(f"mesh {path} is damaged; fetch the assets again") from None


def _parse(text: str) -> PolyMesh:
    vertices: list[list[float]] = []
    uv: list[list[float]] = []
    faces: list[list[int]] = []
    face_uv: list[list[int]] = []
    group = ""
    group_faces: dict[str, list[int]] = {}
    for line in text.splitlines():
        if line.startswith("v "):
            vertices.append([float(x) for x in line.split()[1:4]])
        elif line.startswith("vt "):
            uv.append([float(x) for x in line.split()[1:3]])
        elif line.startswith("g "):
            group = line[2:].strip()
        elif line.startswith("f "):
            corners = [_corner(token, len(vertices), len(uv)) for token in line.split()[1:]]
            for a, b in _split(corners):
                group_faces.setdefault(group, []).append(len(faces))
                faces.append(a)
                face_uv.append(b)
    if not faces:
        raise ValueError("no faces")
    positions = np.array(vertices, dtype=np.float64).reshape(-1, 3)
    if not np.isfinite(positions).all():
        raise ValueError("a vertex is not a finite number")
    face_array = np.array(faces, dtype=np.int64)
    if face_array.max() >= len(positions):
        raise ValueError("a face names a vertex that is not there")
    uv_array = np.array(uv if uv else [[0.0, 0.0]], dtype=np.float64)
    face_uv_array = np.array(face_uv, dtype=np.int64)
    if face_uv_array.max() >= len(uv_array):
        raise ValueError("a face names a texture coordinate that is not there")
    by_group = {name: np.array(index) for name, index in group_faces.items()}
    used = {name: np.unique(face_array[index]) for name, index in by_group.items()}
    used = {name: index[index >= 0] for name, index in used.items()}
    return PolyMesh(positions, uv_array, face_array, face_uv_array, used, by_group)


def _corner(token: str, n_vertices: int, n_uv: int) -> tuple[int, int]:
    parts = token.split("/")
    v = int(parts[0])
    t = int(parts[1]) if len(parts) > 1 and parts[1] else 1
    return (v - 1 if v > 0 else n_vertices + v), (t - 1 if t > 0 else n_uv + t)


def _split(corners: list[tuple[int, int]]) -> list[tuple[list[int], list[int]]]:
    if len(corners) < 3:
        raise ValueError("a face has fewer than three corners")
    if len(corners) == 4:
        return [([c[0] for c in corners], [c[1] for c in corners])]
    out = []
    for i in range(1, len(corners) - 1):
        fan = (corners[0], corners[i], corners[i + 1])
        out.append(([c[0] for c in fan] + [-1], [c[1] for c in fan] + [-1]))
    return out
