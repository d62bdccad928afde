"""Parts in and on the face: eyes, brows, lashes, teeth, tongue, glasses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from studio.assets import AssetFolder, diffuse_texture
from studio.drawing.obj import PolyMesh
from studio.drawing.scene import Part, part_from_mesh
from studio.drawing.subdivide import subdivision
from studio.drawing.textures import (
    build_mips,
    encode,
    read_texture,
    shift_hue,
    solid_texture,
    srgb_to_linear,
)
from studio.hair.cards import opaque_samples
from studio.looks.pose import Pose, rotation_matrix
from studio.people.palette import skin_tone
from studio.people.subject import Subject

# The lower teeth go down besides by this share of what the mouth opens beyond a laugh.
_SINK, _LAUGH = 0.45, 0.04
# Eye texture → turn of its hue, factors on saturation and value.
_EYE_SHIFTS = {"brown": (0.03, 0.75, 1.15), "brownlight": (-0.015, 0.85, 0.9)}


def eye_parts(
    assets: AssetFolder, subject: Subject, points: np.ndarray, pose: Pose, size: int
) -> list[Part]:
    """The right and the left eyeball at `points` [V, 3] (unposed), turned by the pose's gaze."""
    image = read_texture(assets.eye_textures()[subject.eyes], size)
    # The textures are more vivid than eyes, the brown one is a deep red.
    turn, saturation, value = _EYE_SHIFTS.get(subject.eyes, (0.0, 0.75, 0.92))
    image = shift_hue(image, turn, saturation, value)
    mips = build_mips(image)
    mesh = assets.proxy(assets.eyes()).mesh
    turn = rotation_matrix(pose.gaze_yaw, pose.gaze_pitch, 0.0)
    out = []
    for side in (points[:, 0] < 0, points[:, 0] >= 0):
        centre = 0.5 * (points[side].min(0) + points[side].max(0))
        turned = (points - centre) @ turn.T + centre
        refined, matrix, _ = subdivision(mesh.select(side[mesh.faces[:, 0]]))
        out.append(
            part_from_mesh(refined, matrix @ turned, "eyes", mips, blended=True, casts=False)
        )
    return out


def finish_eyes(parts: list[Part]) -> None:
    """Lift the light in the eye sockets and set a catch-light on each cornea."""
    toward = np.array([-0.2, 0.24, 1.0])
    toward /= np.linalg.norm(toward)
    for part in parts:
        if part.label != "eyes":
            continue
        part.light = np.maximum(part.light * 1.25, 0.55)
        direction = part.positions - 0.5 * (part.positions.min(0) + part.positions.max(0))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        angle = np.arccos(np.clip(direction @ toward, -1, 1))
        part.paint[:, :3] = 1.0
        part.paint[:, 3] = np.clip((0.16 - angle) / 0.06, 0, 0.9)


def hair_cards(assets: AssetFolder, subject: Subject, fit, resting: np.ndarray) -> list[Part]:
    """Brows and lashes; `fit` puts a proxy in its place in our world.

    Args:
        resting: [V, 3] base-mesh vertices of the resting face, from which a frown is judged.
    """
    out = []
    brow = srgb_to_linear(np.array(subject.hair_colour)) * 0.55
    brow = np.minimum(brow, 0.4 * srgb_to_linear(skin_tone(subject.tone)))  # or it isn't seen
    child = subject.shape.age < 15
    lashes = 0.5 if subject.is_man or child else 0.9
    for kind, name, colour, strength in (
        ("eyebrows", subject.eyebrows, np.maximum(brow, 0.006), 0.85 if child else 1.0),
        ("eyelashes", subject.eyelashes, np.array([0.006, 0.005, 0.005]), lashes),
    ):
        proxy = assets.proxy(assets.proxies(kind)[name])
        texture = diffuse_texture(proxy.material)
        if texture is None:
            continue
        image = read_texture(texture, 512).copy()
        image[..., :3] = encode(colour)
        if kind == "eyebrows":  # single hairs, too thin for pictures of an ordinary size
            image[..., 3] = np.minimum(1.5 * image[..., 3], 255)
        part = part_from_mesh(
            proxy.mesh, fit(proxy), "hair", build_mips(image), blended=True, casts=False
        )
        part.fade[:] = strength
        if kind == "eyebrows":
            _calm_brows(part, proxy.fit(resting)[part.source])
        out.append(part)
    return out


def _calm_brows(
    part: Part, resting: np.ndarray, lowest: float = -0.08, steepest: float = 0.1
) -> None:
    """Shear both brows so that, at rest, they neither frown nor worry.

    Args:
        resting: [V, 3] the part's vertices in the resting face.
        lowest, steepest: how little and how much they may rise outwards, as a slope.
    """
    seen = opaque_samples(replace(part, positions=resting), 60)
    if len(seen) < 10:
        return
    across = np.abs(seen[:, 0])
    # The inner two thirds decide the look; the tails fall anyhow.
    inner = across < np.quantile(across, 0.66)
    slope = np.polyfit(across[inner], seen[inner, 1], 1)[0]
    excess = slope - np.clip(slope, lowest, steepest)
    part.positions[:, 1] -= excess * (np.abs(part.positions[:, 0]) - across.mean())


def mouth_parts(
    assets: AssetFolder, fit, resting: np.ndarray, lips: tuple[int, int], gap: float, size: int
) -> list[Part]:
    """Teeth and tongue, as far as the assets have them.

    Args:
        resting: [V, 3] base-mesh vertices of the resting face.
        lips: base vertices where the upper and the lower lip meet.
        gap: height of the opening between them, world units.
    """
    out = []
    for kind, name in (("teeth", "teeth_base"), ("tongue", "tongue01")):
        path = assets.proxies(kind).get(name)
        proxy = assets.proxy(path) if path else None
        texture = diffuse_texture(proxy.material) if proxy else None
        if proxy and texture:
            mips = build_mips(read_texture(texture, size))
            points = fit(proxy)
            # The fit takes its offsets from the skin, and leaves the lower jaw's teeth too high.
            lower = piece_means(proxy.mesh, proxy.fit(resting)[:, 1]) < resting[lips[0], 1]
            points[lower, 1] -= _SINK * max(gap - _LAUGH, 0.0)
            out.append(part_from_mesh(proxy.mesh, points, "mouth", mips))
    return out


def piece_means(mesh: PolyMesh, values: np.ndarray) -> np.ndarray:
    """For each vertex the mean [V] of `values` over the piece of `mesh` it belongs to."""
    faces = np.where(mesh.faces < 0, mesh.faces[:, :1], mesh.faces)
    a, b = faces.ravel(), np.roll(faces, 1, axis=1).ravel()
    n = len(values)
    _, piece = connected_components(sparse.coo_matrix((np.ones(len(a)), (a, b)), (n, n)))
    return (np.bincount(piece, values) / np.bincount(piece))[piece]


def finish_mouth(parts: list[Part], gap: float) -> None:
    """Lift the light on the front teeth, which reflect what enters between the lips.

    Args:
        gap: height of the opening between the lips, world units.
    """
    inside = [part for part in parts if part.label == "mouth"]
    front = max((part.positions[:, 2].max() for part in inside), default=0.0)
    enters = 1.6 * np.clip((gap - 0.012) / 0.03, 0, 1)
    for part in inside:
        depth = front - part.positions[:, 2:]
        share = 1.0 if depth.min() < 0.03 else 0.35  # teeth, tongue
        lifted = share * enters * np.exp(-((depth / 0.085) ** 2))
        part.light = np.maximum(part.light, lifted * [1.04, 1.0, 0.92])


def glasses_parts(subject: Subject, skin: Part, eyes: list[Part], ears: np.ndarray) -> list[Part]:
    """Spectacles fitted to the eyes, the bridge of the nose and the ears (unposed)."""
    if subject.glasses == "none":
        return []
    centres = [0.5 * (eye.positions.min(0) + eye.positions.max(0)) for eye in eyes]
    level = 0.5 * (centres[0][1] + centres[1][1]) - 0.008
    p = skin.positions
    bridge = p[(np.abs(p[:, 0]) < 0.05) & (np.abs(p[:, 1] - level) < 0.03)]
    across = np.abs(p[:, 0])
    cheeks = p[(across > 0.1) & (across < 0.3) & (np.abs(p[:, 1] - level) < 0.09)]
    front = max(bridge[:, 2].max() + 0.01, cheeks[:, 2].max() + 0.012)
    beside = (
        ~np.isin(skin.source, ears) & (np.abs(p[:, 1] - level - 0.02) < 0.06) & (p[:, 2] > -0.05)
    )
    temples = across[beside].max() + 0.01
    pitch = 0.5 * (centres[1][0] - centres[0][0])
    width, height = min(0.118, 0.82 * pitch), 0.088
    power = {"round": 2.0, "square": 4.0, "sun": 3.0}[subject.glasses]
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    tubes, lenses = [], []
    for sign in (-1, 1):
        ring = np.stack(
            [
                sign * pitch + width * np.sign(np.cos(t)) * np.abs(np.cos(t)) ** (2 / power),
                level + height * np.sign(np.sin(t)) * np.abs(np.sin(t)) ** (2 / power),
                front - 0.25 * np.abs(sign * pitch + width * np.cos(t)) ** 2,
            ],
            -1,
        )
        tubes.append(_tube(ring, 0.0075, closed=True))
        lenses.append(ring)
        hinge = np.array(
            [sign * (pitch + width), level + 0.02, front - 0.25 * (pitch + width) ** 2]
        )
        ear = p[np.isin(skin.source, ears) & (sign * p[:, 0] > 0)]
        top = ear[np.argmax(ear[:, 1])]
        side = sign * max(temples, np.abs(hinge[0]) + 0.01)
        arm = np.array(
            [
                hinge,
                [side, level + 0.02, hinge[2] - 0.06],
                [side, 0.5 * (level + top[1]), 0.5 * (hinge[2] + top[2])],
                [side, top[1] - 0.015, top[2]],
                [0.96 * side, top[1] - 0.1, top[2] - 0.07],
            ]
        )
        tubes.append(_tube(arm, 0.007, closed=False))
    gap = pitch - width
    x = np.linspace(-gap, gap, 7)
    arch = np.stack([x, level + 0.02 + 0.015 * (1 - (x / gap) ** 2), front - 0.25 * x**2], -1)
    tubes.append(_tube(arch, 0.0065, closed=False))
    frame = solid_texture(subject.glasses_colour)
    out = [
        Part("accessory", points, triangles, np.full((len(points), 2), 0.5), frame)
        for points, triangles in tubes
    ]
    if subject.glasses == "sun":
        dark = solid_texture((0.06, 0.06, 0.07))
        dark.levels[0] = np.array([[[15, 15, 18, 225]]], dtype=np.uint8)
        for ring in lenses:
            n = len(ring)
            points = np.concatenate([ring.mean(0)[None], ring])
            i = np.arange(n)
            fan = np.stack([np.zeros(n, dtype=np.int64), 1 + i, 1 + (i + 1) % n], -1)
            out.append(Part("accessory", points, fan, np.full((n + 1, 2), 0.5), dark, blended=True))
    return out


def _tube(path: np.ndarray, radius: float, closed: bool, sides: int = 8):
    """Points and triangles of a round tube along `path` [n, 3]."""
    n = len(path)
    if closed:
        along = np.roll(path, -1, 0) - np.roll(path, 1, 0)
    else:
        along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    helper = np.where(np.abs(along[:, 1:2]) < 0.8, [[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]])
    u = np.cross(along, helper)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    v = np.cross(along, u)
    a = 2 * np.pi * np.arange(sides) / sides
    points = (
        path[:, None]
        + radius * (np.cos(a)[None, :, None] * u[:, None] + np.sin(a)[None, :, None] * v[:, None])
    ).reshape(-1, 3)
    i, k = np.meshgrid(np.arange(n if closed else n - 1), np.arange(sides), indexing="ij")
    j, m = (i + 1) % n, (k + 1) % sides
    a0, a1, b0, b1 = (
        q.ravel() for q in (i * sides + k, i * sides + m, j * sides + k, j * sides + m)
    )
    return points, np.concatenate([np.stack([a0, a1, b1], -1), np.stack([a0, b1, b0], -1)])
