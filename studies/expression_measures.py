"""Measures of ``triavatar study expressions``, and its tables.

Legend: V vertices, F triangles, Q points, H W picture size in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.spatial import cKDTree

from runtime.described import Described
from runtime.errors import UserError
from triavatar.rig.head_model import MM_PER_UNIT, REGIONS, HeadModel
from triavatar.rig.register import skin_faces

Measures = dict[str, float]


class PersonMeasures(Described):
    """A person's file: "registration" and each expression, with their measures."""

    measures: dict[str, Measures]


CANDIDATES = 6
"""Vertices nearest to a point whose triangles may hold the nearest place of a surface."""
CHANGED = 0.06
"""Difference of a colour, of 1, from which an expression counts as changing a pixel."""
LINES = {
    "face": "face, distance to the true surface",
    "scalp": "scalp, under hair or hat",
    "ears": "ears",
    "neck": "neck",
    "back": "back of head and neck",
    "outside": "hair, hat, clothes: the avatar's surface from the true one",
    "landmarks": "landmarks (eye and mouth corners, lids, nose, lips, chin, ears)",
    "vertices": "face, each vertex from its true place",
    "average": "average head in its place, each vertex of the face",
}
"""What the registration's measures are, by name."""


def surface_distance(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Distance [Q] of points [Q, 3] to the nearest place on a mesh.

    Raises:
        UserError: trimesh is missing.
    """
    try:
        from trimesh.triangles import closest_point
    except ImportError:
        raise UserError(
            "study expressions needs the package trimesh; pip install 'triavatar[meshes]'"
        ) from None
    order = np.argsort(faces.reshape(-1), kind="stable")
    owner = order // 3
    start = np.searchsorted(faces.reshape(-1)[order], np.arange(len(vertices) + 1))
    used = np.unique(faces)
    nearest = cKDTree(vertices[used]).query(points, k=min(CANDIDATES, len(used)))[1]
    near = used[nearest.reshape(len(points), -1)]
    count = (start[near + 1] - start[near]).sum(axis=1)
    query = np.repeat(np.arange(len(points)), count)
    picked = np.concatenate([owner[start[v] : start[v + 1]] for v in near.reshape(-1)])
    places = closest_point(vertices[faces[picked]], points[query])
    best = np.full(len(points), np.inf)
    np.minimum.at(best, query, np.linalg.norm(places - points[query], axis=1))
    return best


def registration_measures(model: HeadModel, skin: np.ndarray, truth: np.ndarray) -> Measures:
    """Return how far a registered skin [V, 3] is from the true one, means in millimetres."""
    apart = MM_PER_UNIT * np.linalg.norm(skin - truth, axis=1)
    away = MM_PER_UNIT * surface_distance(skin, truth, skin_faces(model))
    region = {name: model.region == REGIONS.index(name) for name in REGIONS}
    face = region["face"]
    behind = (truth[:, 2] < truth[region["ears"], 2].min()) & ~region["hidden"]
    average = MM_PER_UNIT * np.linalg.norm(model.mean - truth, axis=1)
    return {
        **{name: float(away[region[name]].mean()) for name in ("face", "scalp", "ears", "neck")},
        "back": float(away[behind].mean()),
        "landmarks": float(apart[model.landmark_points].mean()),
        "vertices": float(apart[face].mean()),
        "average": float(average[face].mean()),
    }


def picture_measures(
    rest: tuple[np.ndarray, np.ndarray], moved: tuple[np.ndarray, np.ndarray]
) -> Measures:
    """Compare a moved picture, and the resting one in its place, with the truth.

    Args:
        rest, moved: the truth and the avatar's, each [H, W, 3] in [0, 1] on white.

    Returns:
        PSNR in dB, of the whole picture and where the expression changes the truth.
    """
    truth, resting = moved[0], rest[1]
    changed = np.abs(truth - rest[0]).max(axis=2) > CHANGED
    out = {"moved": _psnr(moved[1], truth), "still": _psnr(resting, truth)}
    if changed.any():
        out["moved_there"] = _psnr(moved[1][changed], truth[changed])
        out["still_there"] = _psnr(resting[changed], truth[changed])
    return out


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(max(np.square(a - b).mean(), 1e-10)))


def mean_of(rows: Sequence[Mapping[str, float]]) -> Measures:
    """Mean of every measure over the people that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def markdown(people: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """Both tables; ``people`` holds a row of measures for "registration" and each expression."""
    found = mean_of([person["registration"] for person in people])
    worst = max(person["registration"]["face"] for person in people)
    lines = [f"Means over {len(people)} people.", "", "| registration | mm |", "|---|---|"]
    for name, words in LINES.items():
        if name in found:
            more = f" (worst person {worst:.1f})" if name == "face" else ""
            lines.append(f"| {words}{more} | {found[name]:.1f} |")
    lines += [
        "",
        "| PSNR to the studio's own pictures | where the expression changes it, moved "
        "| left at rest | whole picture, moved | left at rest |",
        "|---|---|---|---|---|",
    ]
    for case in [name for name in people[0] if name != "registration"]:
        mean = mean_of([person[case] for person in people])
        there = [f"{mean[k]:.1f} dB" if k in mean else "–" for k in ("moved_there", "still_there")]
        whole = [f"{mean[k]:.1f} dB" for k in ("moved", "still")]
        lines.append(f"| {' | '.join([case, *there, *whole])} |")
    return "\n".join(lines) + "\n"
