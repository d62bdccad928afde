"""An avatar's triplane in an expression: rays bent so that they meet the face where it rested.

Legend: H W picture size in pixels, R rays, N vertices.

For every pixel, the moving triangles say which point of the resting avatar it now sees, and how its
surroundings have turned. The pixel's ray is led through that point in the turned direction, and the
triplane rendered along it (a backward warp). Teeth, tongue, the mouth's inside and turned eyes,
which no triplane of a resting face holds, are drawn from the rig.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from captures.cameras import Cameras
from renderer.samples import Rendered
from studio.looks.pose import rotation_matrix
from triavatar.export.field import Field
from triavatar.export.raster import see
from triavatar.rig.expression import Expression
from triavatar.rig.head_model import PARTS
from triavatar.rig.inside import inside_colors
from triavatar.rig.moving import MovingAvatar, cavity_of

FINE = 2
"""Samples a side of every pixel that decide what it sees."""
OPENED = 0.006
"""World units by which lips part before one looks between them."""
STANDOFF = 1.5
"""World units before the surface at which bent rays begin: in front of the whole head, since
between skin and shell one may look through to the far side."""


@dataclass(frozen=True)
class Bent:
    """Rays through the resting avatar for one picture, and what the rig draws itself.

    Attributes:
        origins, directions: [H·W, 3] float32.
        inside: colours of mouth and eyes, sRGB, [H·W, 3] float32.
        cover: how much of each pixel they cover, [H·W] float32.
        depth: distance from the camera to the moved surface, [H·W] float32; 0 where there is none.
    """

    origins: np.ndarray
    directions: np.ndarray
    inside: np.ndarray
    cover: np.ndarray
    depth: np.ndarray


def render_posed(
    field: Field,
    moving: MovingAvatar,
    cameras: Cameras,
    expression: Expression,
    background: float | torch.Tensor = 1.0,
) -> Rendered:
    """Render N views of an avatar in an expression.

    Args:
        field: its triplane.
        moving: its head and shell.
        cameras: on the CPU.
        expression: what the face does.
        background: grey level, or sRGB [3].

    Returns:
        Color [N, H, W, 3], opacity and depth [N, H, W].
    """
    posed = moving.posed(expression)
    behind = torch.as_tensor(background, dtype=torch.float32).expand(3)
    views = range(len(cameras))
    parts = [_view(field, moving, posed, cameras, v, expression, behind) for v in views]
    shape = (len(cameras), cameras.height, cameras.width)
    return Rendered(*(torch.stack(each) for each in zip(*parts, strict=True))).reshape(*shape)


def _view(field, moving, posed, cameras, view, expression, behind):
    bent = bend(moving, posed, cameras, view, expression)
    planes = field.planes
    origins, directions = (torch.from_numpy(v).to(planes) for v in (bent.origins, bent.directions))
    seen = field.look(origins, directions, near=0.0)
    opacity = seen.opacity.cpu()[:, None]
    cover = torch.from_numpy(bent.cover)[:, None]
    color = (seen.color.cpu() + (1 - opacity) * behind) * (1 - cover)
    color = color + torch.from_numpy(bent.inside) * cover
    opacity = opacity * (1 - cover) + cover
    depth = torch.where(opacity[:, 0] > 0, torch.from_numpy(bent.depth), 0.0)
    return color.clamp(0, 1), opacity[:, 0], depth


def bend(
    moving: MovingAvatar, posed: np.ndarray, cameras: Cameras, view: int, expression: Expression
) -> Bent:
    """Lead the rays of one picture through the resting avatar.

    Args:
        posed: vertices of the moving triangles, [N, 3].
    """
    height, width = cameras.height, cameras.width
    eye, way = (v.numpy().astype(np.float64) for v in cameras.image_rays(view))
    seen = see(posed, moving.faces, cameras.scaled_to(width * FINE, height * FINE), view)
    drawn = _drawn(moving, posed, expression)
    shown = np.where(seen.hit, drawn[seen.face], False)
    fine = (height, FINE, width, FINE)
    cover = shown.reshape(fine).mean(axis=(1, 3), dtype=np.float32).reshape(-1)
    inside = np.zeros((height * width, 3), dtype=np.float32)
    if shown.any():
        colors = np.zeros((*shown.shape, 3), dtype=np.float32)
        colors[shown] = inside_colors(moving, posed, seen, shown, expression)
        total = colors.reshape(height, FINE, width, FINE, 3).sum(axis=(1, 3)).reshape(-1, 3)
        inside = total / np.maximum(cover[:, None] * FINE**2, 1e-6)
    at, known = _samples(seen.hit & ~shown, height, width)
    if not known:
        empty = np.zeros(height * width, dtype=np.float32)
        return Bent(eye.astype(np.float32), way.astype(np.float32), inside, cover, empty)
    corners = moving.faces[seen.face.reshape(-1)[at]]
    weights = seen.weights.reshape(-1, 3)[at].astype(np.float64)
    now = np.einsum("rk,rkc->rc", weights, posed[corners])
    rest = np.einsum("rk,rkc->rc", weights, moving.sampled(expression)[corners])
    share = (weights * moving.share[corners]).sum(axis=1)
    along = ((now - eye) * way).sum(axis=1, keepdims=True)
    away = eye + along * way - now
    target = rest + _turned_back(away, share, expression)
    direction = _turned_back(way, share, expression)
    origins = target - np.minimum(along, STANDOFF) * direction
    return Bent(
        origins.astype(np.float32),
        direction.astype(np.float32),
        inside,
        cover,
        along[:, 0].astype(np.float32),
    )


def _drawn(moving: MovingAvatar, posed: np.ndarray, expression: Expression) -> np.ndarray:
    """Triangles that the rig draws itself, [F] bool; of the mouth, only when it opens."""
    opens = mouth_gap(moving, posed) > mouth_gap(moving, moving.rest) + OPENED
    names = ["upper teeth", "lower teeth", "tongue"] if opens else []
    for side in ("Right", "Left"):
        if moving.head.eye_turn(expression, side) is not None:
            names.append(f"{side.lower()} eye")
    drawn = np.isin(moving.part, [PARTS.index(name) for name in names])
    if not opens:
        return drawn
    inner = np.zeros(len(moving.rest), dtype=bool)
    inner[: len(moving.head.model.mean)] = cavity_of(moving.head)
    return drawn | (inner[moving.faces].all(axis=1) & (moving.part == 0))


def mouth_gap(moving: MovingAvatar, points: np.ndarray) -> float:
    """How far the lips stand apart, world units."""
    model = moving.head.model
    names = list(model.config.landmarks)
    upper, lower = (
        points[model.landmark_points[names.index(f"{s} lip")]] for s in ("upper", "lower")
    )
    return float(np.linalg.norm(upper - lower))


def _samples(usable: np.ndarray, height: int, width: int) -> tuple[np.ndarray, bool]:
    """For each pixel the (flat) fine sample that says where it looks: its own, or the nearest."""
    if not usable.any():
        return np.zeros(height * width, dtype=np.int64), False
    row, column = distance_transform_edt(~usable, return_distances=False, return_indices=True)
    flat = (row * usable.shape[1] + column).reshape(height, FINE, width, FINE)
    own = usable.reshape(height, FINE, width, FINE)
    first = own.transpose(0, 2, 1, 3).reshape(height, width, -1).argmax(axis=-1)
    order = flat.transpose(0, 2, 1, 3).reshape(height, width, -1)
    return np.take_along_axis(order, first[..., None], axis=-1).reshape(-1), True


def _turned_back(vectors: np.ndarray, share: np.ndarray, expression: Expression) -> np.ndarray:
    """Vectors [R, 3] against the head's turn, of which each follows a share [R]."""
    full = rotation_matrix(expression.yaw, expression.pitch, expression.roll)
    angle = np.arccos(np.clip((np.trace(full) - 1) / 2, -1, 1))
    if angle < 1e-6:
        return vectors
    axis = np.array([full[2, 1] - full[1, 2], full[0, 2] - full[2, 0], full[1, 0] - full[0, 1]])
    axis /= np.linalg.norm(axis)
    a = (-share * angle)[:, None]
    along = (vectors @ axis)[:, None] * axis
    return vectors * np.cos(a) + np.cross(axis, vectors) * np.sin(a) + along * (1 - np.cos(a))
