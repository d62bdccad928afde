"""What the viewer's page draws by itself while hands and faces move: coloured triangles.

Legend: N vertices, F triangles.

With a head model it is the moving avatar, with its blend shapes; without one, the surface alone.
"""

from __future__ import annotations

import base64

import numpy as np
import torch
from scipy.spatial import cKDTree

from triavatar.export.bake import fall
from triavatar.export.field import Field
from triavatar.export.mesh import Mesh
from triavatar.export.surface import corner_normals
from triavatar.rig.head_model import PARTS
from triavatar.rig.inside import CAVITY, eye_colors
from triavatar.rig.moving import MovingAvatar, cavity_of, shell_follow
from triavatar.rig.rigged import RiggedHead

LEAST = 2e-4
"""World units below which a blend shape leaves a vertex where it is."""


def surface_colors(mesh: Mesh, field: Field) -> np.ndarray:
    """Colours of a surface's vertices as short rays see them, sRGB uint8 [N, 3]."""
    normals = torch.from_numpy(corner_normals(mesh)).to(field.planes)
    points = torch.from_numpy(np.asarray(mesh.vertices, dtype=np.float32)).to(field.planes)
    color, decided = (each.cpu().numpy() for each in fall(field, points, normals))
    if decided.any() and not decided.all():
        known = np.flatnonzero(decided)
        nearest = cKDTree(mesh.vertices[known]).query(mesh.vertices[~decided])[1]
        color[~decided] = color[known[nearest]]
    return (np.clip(color, 0, 1) * 255 + 0.5).astype(np.uint8)


def head_colors(head: RiggedHead, field: Field) -> np.ndarray:
    """Colours of the head's points, uint8 [P, 3]: skin as seen, mouth and eyes as painted."""
    model = head.model
    faces = model.source[model.faces[model.part == 0]].astype(np.int32)
    skin = surface_colors(Mesh(head.registered.skin.astype(np.float32), faces), field)
    skin[cavity_of(head)] = CAVITY * 0.5 * 255
    inner = model.colors.copy()
    angle = np.arccos(np.clip(model.units[:, 2] / np.linalg.norm(model.units, axis=1), -1, 1))
    for side, part in enumerate(("right eye", "left eye")):
        rows = model.inner == PARTS.index(part) - 1
        inner[rows] = eye_colors(angle[rows], head.eyes[side]) * 255
    return np.concatenate([skin, inner])


def pack(values: np.ndarray) -> str:
    """Little-endian bytes as text."""
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def pack_surface(mesh: Mesh, field: Field) -> dict:
    """A surface as the page takes it: positions, colours, triangles."""
    return {
        "places": pack(mesh.vertices.astype("<f4")),
        "colors": pack(surface_colors(mesh, field)),
        "faces": pack(mesh.faces.astype("<u4")),
    }


def pack_moving(moving: MovingAvatar, field: Field) -> dict:
    """A moving avatar as the page takes it: blend shapes and the head's turn besides."""
    head = moving.head
    shell = (
        surface_colors(moving.shell, field) if len(moving.shell.faces) else np.zeros((0, 3), "u1")
    )
    colors = np.concatenate([head_colors(head, field), shell])
    follow = shell_follow(head, moving.shell)
    skin, points = len(head.model.mean), len(head.points)
    rows, offsets, start = [], [], [0]
    for name in head.model.shapes:
        moved, offset = head.shape(name)
        whole = np.zeros((skin, 3), dtype=np.float32)
        whole[moved[moved < skin]] = offset[moved < skin]
        around = follow @ whole
        near = np.flatnonzero(np.abs(around).max(axis=1) > LEAST) if len(around) else []
        rows.append(np.concatenate([moved, points + np.asarray(near, dtype=np.int64)]))
        offsets.append(np.concatenate([offset, around[near] if len(around) else around]))
        start.append(start[-1] + len(rows[-1]))
    return {
        "places": pack(moving.rest.astype("<f4")),
        "colors": pack(colors.astype(np.uint8)),
        "faces": pack(moving.faces.astype("<u4")),
        "share": pack(moving.share.astype("<f4")),
        "neck": head.neck.astype(float).tolist(),
        "shapes": list(head.model.shapes),
        "start": start,
        "rows": pack(np.concatenate(rows).astype("<u4")),
        "offsets": pack(np.concatenate(offsets).astype("<f4")),
    }
