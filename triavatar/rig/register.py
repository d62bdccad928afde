"""Registration: the head model laid under an avatar's surface, coarse to fine.

Legend: V vertices of the skin, K components, R rays.

A first guess from pictures, then Gauss-Newton on coefficients and place: every vertex that a
camera sees looks along its pixel's ray for the surface of the triplane, and the distance along the
vertex's normal is what should vanish. In front of scalp and neck may lie hair and clothes; there
only skin that sticks out of the surface is pulled back. Where the avatar shows its eyes lower than
that puts them, as those of photographs do, more steps take them there. At last the face's vertices
move freely, as smoothly as the residuals allow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import splu

from captures.cameras import Cameras
from triavatar.export.bake import Views, photograph
from triavatar.export.field import Field
from triavatar.export.mesh import Mesh
from triavatar.export.raster import see
from triavatar.export.surface import corner_normals
from triavatar.rig.first_guess import first_guess
from triavatar.rig.head_model import REGIONS, HeadModel
from triavatar.views import still_cameras

VIEW_SIZE = 96
SIDES = (
    (0.0, 0.0),
    (-35.0, 0.0),
    (35.0, 0.0),
    (-70.0, 5.0),
    (70.0, 5.0),
    (0.0, 30.0),
    (0.0, -25.0),
)
"""Azimuth and elevation of the pictures that registration looks at, degrees."""
BEHIND = ((180.0, 10.0), (-120.0, 10.0), (120.0, 10.0))
ROUNDS = 6
TRUSTED = 0.03
"""World units beyond which a residual counts ever less."""
NOISE = 0.08
"""Deviation of the surface that rays find from the skin, world units. It is larger than what is
measured (0.01), since neighbours err alike: soft surfaces lie too deep or too shallow all over."""
WEIGHTS = {"hidden": (0.0, 0.0), "face": (1.0, 1.0), "ears": (0.1, 0.3), "scalp": (0.03, 0.5),
           "neck": (0.1, 0.5)}  # fmt: skip
"""Of a region: how much a surface in front of the skin counts, and one behind it."""
EYE_REACH, EYE_PIXELS = 0.13, 41
"""How far around a registered eye the avatar's own is looked for, world units; samples across."""
LOW, EYE_NOISE = 0.012, 0.004
"""World units: how far down an eye must be seen before it counts, and how well it is then known."""
EYE_DARKNESS = 0.03
"""How much darker than its surroundings an eye must be, of 1, as a mean around it."""
STIFFNESS = 4.0
SURE = 0.015
"""World units of residual that soft surfaces have anyway: no vertex moves freely for less."""
FARTHEST = 0.02
"""World units that a vertex may move freely."""


@dataclass(frozen=True)
class Registered:
    """A head laid under an avatar.

    Attributes:
        z: coefficients, [K].
        skin: [V, 3] world units.
        boxes: of the inner parts, [5, 2, 3].
        joints: [5, 3].
        residual: median distance of the face from the surface before free moves, world units.
    """

    z: np.ndarray
    skin: np.ndarray
    boxes: np.ndarray
    joints: np.ndarray
    residual: float


def register(model: HeadModel, field: Field) -> Registered:
    """Lay the head model under an avatar: seconds on a CPU."""
    views = photograph(field, _cameras())
    z = guess = first_guess(model, field)
    residual = 0.0
    for turn in range(ROUNDS):
        skin = model.skin(z)
        gap, weight, normals = residuals(model, skin, views, tightness(turn))
        z = _step(model, guess, z, gap, weight, normals)
        face = (model.region == REGIONS.index("face")) & (weight > 0)
        residual = float(np.median(np.abs(gap[face]))) if face.any() else np.inf
    drop = eyes_below(model.boxes(z)[3:, 0], field)
    if drop < -LOW:
        places = model.boxes(z)[3:, 0, 1] + drop
        for _ in range(ROUNDS // 2):
            gap, weight, normals = residuals(model, model.skin(z), views, TRUSTED)
            z = _step(model, guess, z, gap, weight, normals, places)
    skin = model.skin(z)
    gap, weight, normals = residuals(model, skin, views, TRUSTED / 2)
    skin = skin + free_moves(model, gap, weight)[:, None] * normals
    return Registered(z, skin, model.boxes(z), model.joints(z), residual)


def tightness(turn: int) -> float:
    """Scale of trusted residuals in a round: wide first, then narrow."""
    return TRUSTED * max(1.0, 3.0 - turn)


def _cameras() -> Cameras:
    parts = [still_cameras((a,), VIEW_SIZE, e, 3.9) for a, e in (*SIDES, *BEHIND)]
    joined = {n: torch.cat([getattr(p, n) for p in parts]) for n in ("c2w", "fx", "fy", "cx", "cy")}
    return Cameras(width=VIEW_SIZE, height=VIEW_SIZE, **joined)


def skin_faces(model: HeadModel) -> np.ndarray:
    """Triangles of the skin on its vertices, without texture seams, [F', 3]."""
    return model.source[model.faces[model.part == 0]].astype(np.int32)


def residuals(
    model: HeadModel, skin: np.ndarray, views: Views, trusted: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how far the surface lies before each vertex.

    Returns:
        Distance along the normal [V] (positive: the surface lies outside), weight [V], normals
        [V, 3].
    """
    faces = skin_faces(model)
    normals = corner_normals(Mesh(skin.astype(np.float32), faces)).astype(np.float64)
    total, weights = np.zeros(len(skin)), np.zeros(len(skin))
    outside, behind = np.array([WEIGHTS[name] for name in REGIONS]).T
    for view in range(len(views)):
        rows, distance, facing = _look(
            skin, faces, normals, views, view, float(model.depth_offset[0])
        )
        region = model.region[rows]
        trust = np.where(distance > 0, outside[region], behind[region])
        # Geman and McClure (1985): what lies far off is something else, hair or a hat.
        robust = 1 / (1 + (distance / trusted) ** 2) ** 2
        weight = trust * robust * facing**2
        np.add.at(total, rows, weight * distance)
        np.add.at(weights, rows, weight)
    return total / np.maximum(weights, 1e-9), weights, normals


def _look(skin, faces, normals, views: Views, view: int, offset: float):
    """Vertices a view sees, how far along the normal its surface lies, and how they face it."""
    cameras = views.cameras
    c2w = cameras.c2w[view].double().numpy()
    eye = c2w[:3, 3]
    way = skin - eye
    depth = np.linalg.norm(way, axis=1)
    way = way / depth[:, None]
    facing = -(normals * way).sum(axis=1)
    local = (skin - eye) @ c2w[:3, :3]
    x = local[:, 0] / local[:, 2] * float(cameras.fx[view]) + float(cameras.cx[view]) - 0.5
    y = local[:, 1] / local[:, 2] * float(cameras.fy[view]) + float(cameras.cy[view]) - 0.5
    size = cameras.width
    inside = (x > 0) & (y > 0) & (x < size - 1.001) & (y < size - 1.001) & (facing > 0.2)
    # What the mesh itself hides is not looked for.
    seen = see(skin, faces, cameras, view)
    near = np.full(seen.face.shape, np.inf)
    near[seen.hit] = seen.blend(depth[:, None], faces)[:, 0]
    near_x, near_y = np.clip(np.round(x), 0, size - 1), np.clip(np.round(y), 0, size - 1)
    visible = depth < near[near_y.astype(int), near_x.astype(int)] + 0.05
    rows = np.flatnonzero(inside & visible)
    left, top = x[rows].astype(int), y[rows].astype(int)
    fx, fy = x[rows] - left, y[rows] - top
    found, sure = np.zeros(len(rows)), np.ones(len(rows), dtype=bool)
    for dx, dy, share in ((0, 0, (1 - fx) * (1 - fy)), (1, 0, fx * (1 - fy)),
                          (0, 1, (1 - fx) * fy), (1, 1, fx * fy)):  # fmt: skip
        found += share * views.depth[view][top + dy, left + dx]
        sure &= views.opacity[view][top + dy, left + dx] > 0.8
    rows, found = rows[sure], found[sure]
    # Along the ray from vertex to surface, seen along the normal.
    distance = (depth[rows] - found) * facing[rows] - offset
    return rows, distance, facing[rows]


def eyes_below(centres: np.ndarray, field: Field) -> float:
    """How far below the registered eyes [2, 3] the avatar shows its own, world units, at most 0.

    Eyes are dark spots on both sides of the nose. Brows, fringes and the frames of glasses are
    dark, too, but lie higher; so registered eyes are only believed to be too high, never too low,
    and only where both sides agree.
    """
    line = np.linspace(-EYE_REACH, EYE_REACH, EYE_PIXELS)
    x, y = np.meshgrid(line, line)
    sides = []
    for centre, sign in zip(centres, (1.0, -1.0), strict=True):
        # The left eye's picture is mirrored, so that both have the nose on one side.
        offset = np.stack([sign * x.ravel(), y.ravel(), np.full(x.size, 0.6)], axis=1)
        origins = torch.from_numpy(centre + offset).to(field.planes)
        ahead = torch.tensor([0.0, 0.0, -1.0]).to(origins).expand_as(origins)
        seen = field.look(origins, ahead, near=0.0)
        color = (seen.color / seen.opacity[:, None].clamp(min=0.05)).cpu().numpy()
        sides.append(color.mean(axis=1).reshape(x.shape))
    light = np.maximum(*sides)
    across, up = 0.0, 0.0
    for width in (0.045, 0.045, 0.03, 0.03, 0.03, 0.03):
        near = (np.abs(x - across) < 0.07) & (np.abs(y - up) < 0.07)
        dark = np.clip(np.quantile(light[near], 0.6) - light, 0, None)
        window = np.exp(-((x - across) ** 2 + (y - up) ** 2) / (2 * width**2))
        total = max((window * dark).sum(), 1e-9)
        across, up = (window * dark * x).sum() / total, (window * dark * y).sum() / total
    sure = total / window.sum() > EYE_DARKNESS and abs(across) < 0.03 and up > -0.06
    return float(min(up, 0.0)) if sure else 0.0


def _step(model: HeadModel, guess, z, gap, weight, normals, eyes=None) -> np.ndarray:
    """One step of Gauss and Newton; the first guess is the prior.

    Args:
        eyes: heights of the right and the left eye, where they are known.
    """
    rows = np.flatnonzero(weight > 1e-3)
    share = np.minimum(weight[rows], 1.0) / (NOISE**2 * 12)
    slopes = np.einsum("kvc,vc->vk", model.basis[:, rows], normals[rows])
    target = gap[rows] + slopes @ z
    prior = 1 / np.maximum(model.guess_deviation, 0.05) ** 2
    left = (slopes * share[:, None]).T @ slopes + np.diag(prior)
    right = slopes.T @ (share * target) + prior * guess
    if eyes is not None:
        rise = model.boxes_basis[:, 3:, 0, 1]
        left += rise @ rise.T / EYE_NOISE**2
        right += rise @ (eyes - model.boxes_mean[3:, 0, 1]) / EYE_NOISE**2
    return np.linalg.solve(left, right)


def free_moves(model: HeadModel, gap: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Smooth distances [V] along the normals that close what gaps are left on the face."""
    faces = skin_faces(model)
    count = len(model.mean)
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    links = sparse.coo_matrix((np.ones(len(pairs)), pairs.T), (count, count)).tocsr()
    links = ((links + links.T) > 0).astype(float)
    laplacian = sparse.diags(np.asarray(links.sum(axis=1)).ravel()) - links
    movable = model.region == REGIONS.index("face")
    # Lids must keep to their eyeballs.
    for centre, half in model.boxes_mean[3:]:
        movable &= np.linalg.norm(model.mean - centre, axis=1) > 1.6 * half[0]
    weight = np.where(movable, np.minimum(weight, 1.0), 0.0)
    system = sparse.diags(weight + 0.02) + STIFFNESS * (laplacian + 0.2 * laplacian @ laplacian)
    beyond = np.sign(gap) * np.maximum(np.abs(gap) - SURE, 0)
    moved = splu(system.tocsc()).solve(weight * beyond)
    return np.clip(moved, -FARTHEST, FARTHEST)


def surface_offset(model: HeadModel, skin: np.ndarray, field: Field) -> float:
    """Median distance at which rays meet an avatar's surface before its true face, world units."""
    views = photograph(field, _cameras())
    bare = replace(model, depth_offset=np.zeros(1, dtype=np.float32))
    gap, weight, _ = residuals(bare, skin, views, TRUSTED)
    face = (model.region == REGIONS.index("face")) & (weight > 0.1)
    return float(np.median(gap[face])) if face.any() else 0.0
