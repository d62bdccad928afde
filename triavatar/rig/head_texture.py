"""Colours for a registered head: its skin from the triplane, its eyes and mouth painted.

Legend: T side of the texture in texels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from triavatar.export.atlas import fill_holes, texels
from triavatar.export.bake import Views, bake, correct
from triavatar.export.field import Field
from triavatar.export.mesh import Mesh
from triavatar.export.surface import corner_normals
from triavatar.rig.head_model import PARTS
from triavatar.rig.inside import CAVITY, eye_colors, lid_shadow
from triavatar.rig.moving import MovingAvatar, cavity_of
from triavatar.rig.rigged import USUAL_EYE, RiggedHead

RINGS = (0.22, 0.36, 0.6)
"""Radii, in eyeballs, at which the front of an eye is looked at."""


def measure_eyes(head: RiggedHead, field: Field) -> np.ndarray:
    """Colours of iris and white of both eyes as the triplane shows them from the front, [2, 2, 3].

    Small eyes are blurred with their lids, so the darkest and the brightest quarter of what is seen
    are taken, with a quarter of an ordinary eye's colours.
    """
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn), np.zeros(24)], axis=1)
    ring = np.concatenate([radius * circle for radius in RINGS])
    out = []
    for centre, half in head.registered.boxes[3:]:
        origins = centre + [0, 0, 0.6] + half[0] * ring
        rays = torch.from_numpy(origins).to(field.planes)
        ahead = torch.tensor([0.0, 0.0, -1.0]).to(rays).expand_as(rays)
        color = field.look(rays, ahead, near=0.0).color.cpu().numpy()
        color = color[np.argsort(color.sum(axis=1))]
        quarter = len(color) // 4
        seen = np.stack([color[:quarter].mean(axis=0), color[-quarter:].mean(axis=0)])
        out.append(0.75 * seen + 0.25 * USUAL_EYE)
    return np.array(out, dtype=np.float32)


def head_texture(moving: MovingAvatar, field: Field, views: Views, size: int) -> np.ndarray:
    """The head's texture, [T, T, 3] uint8.

    Args:
        views: pictures of the avatar that the skin's colours are corrected by.
        size: T.
    """
    head, model = moving.head, moving.head.model
    points = head.points
    normals = corner_normals(Mesh(points, model.source[model.faces]))
    outside = model.part == 0
    outside[outside] = ~cavity_of(head)[model.source[model.faces[outside]]].all(axis=1)
    skin = Mesh(points[model.source], model.faces[outside], normals[model.source], model.uv)
    baked = correct(bake(skin, field, size), views)
    assert baked.texture is not None
    texture = baked.texture.astype(np.float32) / 255
    inner = replace(skin, faces=model.faces[~outside])
    seen = texels(inner, size)
    painted = _painted(head, seen, np.flatnonzero(~outside))
    own, known = np.zeros_like(texture), seen.hit
    own[known] = painted
    # Gutters around what is painted get its colours, too.
    spread = fill_holes(own, known, reach=6)
    near = spread.any(axis=2) & ~texels(skin, size).hit
    texture[near] = spread[near]
    return (texture * 255 + 0.5).astype(np.uint8)


def _painted(head: RiggedHead, seen, rows: np.ndarray) -> np.ndarray:
    """Colours of the texels of cavity, teeth, tongue and eyes, row by row."""
    model = head.model
    face = rows[seen.face[seen.hit]]
    weights = seen.weights[seen.hit]
    corners = model.source[model.faces[face]]
    colors = np.concatenate(
        [np.tile(CAVITY * 0.6, (len(model.mean), 1)), model.colors.astype(np.float32) / 255]
    )
    out = np.einsum("rk,rkc->rc", weights, colors[corners]).astype(np.float32)
    for side, part in enumerate(("right eye", "left eye")):
        chosen = model.part[face] == PARTS.index(part)
        local = model.units[corners[chosen] - len(model.mean)]
        way = np.einsum("rk,rkc->rc", weights[chosen], local)
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        angle = np.arccos(np.clip(way[:, 2], -1, 1))
        out[chosen] = lid_shadow(way) * eye_colors(angle, head.eyes[side])
    return out
