"""Place, size and front of the subjects, from their visual hulls.

The world is right-handed, +y up, the subject looks along +z and fills most of the box
[-1, 1]³. The frontal portrait tells up and front, the hull tells scale and centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np

from captures.doctor.camera_search import Meaning
from captures.doctor.findings import Finding, listed
from captures.doctor.silhouettes import Pinholes, Sightings, aim, carve

# The axes (right, down, forward as columns) of a camera that sees the face from the front.
FRONTAL = np.diag([1.0, -1.0, -1.0])
_MOST_TURNED = 25.0  # degrees
_FRONTAL_ENOUGH = 15.0  # degrees
# Largest extent of subjects in world units: the studio's are 1.6; smaller ones waste the planes.
_SIZE, _SMALLEST, _LARGEST = 1.6, 0.9, 1.95
_EDGE = 1.03
_OFF_CENTRE = 0.35
_FACTORS = {
    0.01: "lengths are centimetres where metres were meant",
    100.0: "lengths are metres where centimetres were meant",
    0.001: "lengths are millimetres where metres were meant",
    1000.0: "lengths are metres where millimetres were meant",
    0.6 / 23: "the RodinHD set's division by 23 and factor 0.6 were left out",
    23 / 0.6: "the RodinHD set's division by 23 and factor 0.6 were applied twice",
    1 / 23: "the RodinHD set's division by 23 was left out",
    23.0: "the RodinHD set's division by 23 was applied twice",
}


@dataclass
class Placed:
    """One subject in the file's world.

    Attributes:
        points: of its hull, [K, 3].
        portrait: axes of the portrait's camera, [3, 3], or None without one.
        cut: whether pictures' borders cut it, so that the hull's ends are not known.
        seen, pinholes: its pictures and cameras.
    """

    points: np.ndarray
    portrait: np.ndarray | None
    cut: bool
    seen: Sightings
    pinholes: Pinholes


def place(meaning: Meaning, seen: Sightings, grid: int, portrait_frame: int) -> Placed | None:
    """Carve one subject; None where the cameras make no hull."""
    pinholes = meaning.pinholes(seen)
    if pinholes is None or not aim(pinholes, seen.masks).plausible:
        return None
    hull = carve(pinholes, seen.masks, grid, tolerance=len(seen.frames) // 12)
    if not hull.inside.any():
        return None
    masks = seen.masks
    touching = masks[:, 0].any(1) | masks[:, -1].any(1)
    touching |= masks[:, :, 0].any(1) | masks[:, :, -1].any(1)
    portrait = None
    if portrait_frame in seen.frames:
        portrait = pinholes.axes[seen.frames.index(portrait_frame)]
    return Placed(hull.points[hull.inside], portrait, touching.mean() > 0.3, seen, pinholes)


def turned(world: np.ndarray, axes: np.ndarray) -> float:
    """Degrees between a camera (axes in the file's world) and a frontal upright one."""
    rotation = _unit(world) @ axes @ FRONTAL.T
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))


def _unit(world: np.ndarray) -> np.ndarray:
    linear = world[:3, :3]
    return linear / np.abs(np.linalg.det(linear)) ** (1 / 3)


def check_orientation(
    world: np.ndarray, placed: list[Placed], portrait_frame: int
) -> tuple[np.ndarray, list[Finding]]:
    """The world's axes and the portrait's frame.

    Returns:
        The world to go on with (rotated or mirrored where that is the cure), findings.
    """
    known = [subject for subject in placed if subject.portrait is not None]
    if not known:
        return world, []
    mirrored = float(np.median([np.linalg.det(_axes_of(subject)) for subject in known])) < 0
    if mirrored != (np.linalg.det(world[:3, :3]) < 0):
        # The finding about handedness carries this.
        return _turn(world, known, mirrored), []
    angle = float(np.median([turned(world, _axes_of(subject)) for subject in known]))
    if angle <= _MOST_TURNED:
        return world, []
    better = _better_portrait(world, known, portrait_frame)
    if better is not None:
        return world, [
            Finding(
                "no-frontal-portrait",
                f"frame {portrait_frame} should be the frontal portrait, but its camera is "
                f"{angle:.0f}° away from the front and frame {better} is frontal",
                f"take frame {better} as the portrait",
                [],
                {"pictures": {"portrait_frame": better}},
            )
        ]
    if not _symmetric(known, portrait_frame):
        return world, [
            Finding(
                "no-frontal-portrait",
                f"frame {portrait_frame} should be the frontal portrait, but its camera is "
                f"{angle:.0f}° away from the front, and no view is frontal",
                "render a frontal portrait as frame 0; models are conditioned on it",
            )
        ]
    turned_world = _turn(world, known, mirrored)
    return turned_world, [
        Finding(
            "world-axes",
            f"under the set's axes the portrait is seen {angle:.0f}° away from the front",
            f"turn the world so that {_direction(turned_world, 1)} of the files is up and the "
            f"subject looks along {_direction(turned_world, 2)}",
            [],
            {"world": {"world_from_file": _as_list(turned_world)}},
        )
    ]


def _axes_of(subject: Placed) -> np.ndarray:
    assert subject.portrait is not None
    return subject.portrait


def _direction(world: np.ndarray, row: int) -> str:
    """The file's direction that becomes house axis ``row``."""
    vector = _unit(world)[row]
    axis = int(np.abs(vector).argmax())
    if abs(vector[axis]) > 0.98:
        return ("+" if vector[axis] > 0 else "-") + "xyz"[axis]
    return f"({vector[0]:.2f}, {vector[1]:.2f}, {vector[2]:.2f})"


def _turn(world: np.ndarray, known: list[Placed], mirrored: bool) -> np.ndarray:
    """``world`` turned so that the portraits are frontal: by right angles if that is enough."""
    sign = -1 if mirrored != (np.linalg.det(world[:3, :3]) < 0) else 1
    best, best_angle = np.eye(3), np.inf
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        turn = np.eye(3)[list(order)] * np.array(signs)[:, None]
        if np.linalg.det(turn) * sign < 0:
            continue
        angles = [turned(_after(turn, world), _axes_of(subject)) for subject in known]
        if np.median(angles) < best_angle:
            best, best_angle = turn, float(np.median(angles))
    if best_angle > _MOST_TURNED:
        best = FRONTAL @ _axes_of(known[0]).T @ _unit(world).T
    return _after(best, world)


def _after(turn: np.ndarray, world: np.ndarray) -> np.ndarray:
    out = np.eye(4)
    out[:3] = turn @ world[:3]
    return out


def _better_portrait(world: np.ndarray, known: list[Placed], portrait_frame: int) -> int | None:
    """A frame that is frontal under ``world`` and whose pictures look more frontal."""
    common = set.intersection(*(set(subject.seen.frames) for subject in known))
    angles = {
        frame: max(
            turned(world, subject.pinholes.axes[subject.seen.frames.index(frame)])
            for subject in known
        )
        for frame in common
    }
    frontal = [frame for frame, angle in angles.items() if angle <= _FRONTAL_ENOUGH]
    if not frontal:
        return None
    best = min(frontal, key=lambda frame: angles[frame])
    own = _asymmetry(known, portrait_frame)
    return best if _asymmetry(known, best) < 0.9 * own else None


def _symmetric(known: list[Placed], frame: int) -> bool:
    """Whether a frame looks like a front (or back) view: far more symmetric than most views."""
    others = [_asymmetry([subject], other) for subject in known for other in subject.seen.frames]
    return _asymmetry(known, frame) <= np.percentile(others, 35)


def _asymmetry(known: list[Placed], frame: int) -> float:
    """Mean difference between pictures and their mirror images; heads are least so in front."""
    return float(
        np.mean([mirror_difference(s.seen.images[s.seen.frames.index(frame)]) for s in known])
    )


def mirror_difference(rgba: np.ndarray) -> float:
    """How much a picture [H, W, 4] differs from its mirror image about the best upright axis."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    layers = np.concatenate([rgba[..., :3] / 255.0 * alpha, alpha], axis=-1)
    column = np.arange(rgba.shape[1])
    middle = (alpha[..., 0].sum(axis=0) * (column + 0.5)).sum() / alpha.sum()
    best = np.inf
    for shift in np.arange(-4, 5) / 2:
        mirror = np.round(2 * (middle + shift) - column - 1).astype(int)
        other = layers[:, np.clip(mirror, 0, len(column) - 1)]
        best = min(best, float(np.abs(layers - other).sum() / alpha.sum() / 4))
    return best


def check_extent(world: np.ndarray, placed: list[Placed]) -> tuple[np.ndarray, list[Finding]]:
    """Scale and centre against the box.

    Returns:
        The world that puts the subjects into the box, findings.
    """
    if not placed:
        return world, []
    bounds = np.stack([_bounds(world, subject) for subject in placed])  # [subjects, 2, 3]
    sizes = (bounds[:, 1] - bounds[:, 0]).max(axis=-1)
    size = float(np.median(sizes))
    low, high = np.percentile(bounds[:, 0], 10, axis=0), np.percentile(bounds[:, 1], 90, axis=0)
    centre = (low + high) / 2
    slack = 1.5 if any(subject.cut for subject in placed) else 1.0
    found: list[Finding] = []
    new = world.copy()
    if not _SMALLEST / slack <= size <= _LARGEST * slack:
        factor, reason = _scale_cure(size, centre)
        new[:3] *= factor
        centre = centre * factor
        found.append(
            Finding(
                "scale",
                f"the subjects are {size:.3g} wide or high in world units; the box [-1, 1]³ holds 2"
                + (" and most of it stays empty" if size < _SMALLEST else ""),
                f"multiply lengths by {factor:.4g}" + (f": {reason}" if reason else ""),
            )
        )
        size *= factor
    off = np.abs(centre).max()
    outside = max(np.abs(low).max(), np.abs(high).max()) > _EDGE * slack
    if off > _OFF_CENTRE or (not found and outside and off > 0.05 * slack):
        new[:3, 3] -= centre
        shift = ", ".join(f"{-value:+.2f}" for value in centre)
        found.append(
            Finding(
                "centre",
                f"the subjects' middle lies {np.linalg.norm(centre):.2f} world units off the box's",
                f"move the world by ({shift})",
            )
        )
    for finding in found:
        finding.fix = {"world": {"world_from_file": _as_list(new)}}
    shares = sizes / np.median(sizes)
    odd = [p.seen.name for p, s in zip(placed, shares, strict=True) if not 0.6 < s < 1.6]
    if odd:
        found.append(
            Finding(
                "subject-size",
                f"{len(odd)} subject(s) are far larger or smaller than the rest: {listed(odd)}",
                "one set has one scale: import them again with their own, or leave them out",
                odd,
                {"objects": {name: {"exclude": "all"} for name in odd}},
            )
        )
    return new, found


def _bounds(world: np.ndarray, subject: Placed) -> np.ndarray:
    """Corners of the hull in world units, [2, 3]."""
    house = subject.points @ world[:3, :3].T + world[:3, 3]
    return np.percentile(house, [0.3, 99.7], axis=0)


def _scale_cure(size: float, centre: np.ndarray) -> tuple[float, str]:
    """(factor, its likely reason); a well-known factor if it serves, else one that fits."""

    def serves(factor: float) -> bool:
        inside = np.abs(centre).max() * factor <= _OFF_CENTRE
        return inside and 1.1 <= size * factor <= 1.9

    named = [factor for factor in _FACTORS if serves(factor)]
    if named:
        best = min(named, key=lambda factor: abs(np.log(size * factor / _SIZE)))
        return best, _FACTORS[best]
    return float(f"{_SIZE / size:.4g}"), ""


def _as_list(world: np.ndarray) -> list[list[float]]:
    return [[round(float(value), 10) + 0.0 for value in row] for row in world]


def world_fix(world: np.ndarray, axes: str) -> dict[str, Any]:
    """The complete ``world`` of ``dataset.json``."""
    return {"world": {"world_from_file": _as_list(world), "camera_axes": axes}}
