"""The search for what the cameras of a set mean, judged by silhouettes and colours.

Tried are kinds of matrix (camera-to-world or world-to-camera, by rows or by columns), the 48 axes
a camera can have (24 rotations, and 24 mirrored: a left-handed world), and the units that a focal
length may be written in, then its factor. The world's scale, centre and axes change none of that
and follow from the hull afterwards (:mod:`captures.doctor.world`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import permutations, product

import numpy as np

from captures.camera_files import FOCAL_UNITS, MATRICES, CameraFormat
from captures.conventions import camera_axes_matrix, name_camera_axes
from captures.doctor.silhouettes import (
    Hull,
    Pinholes,
    Sightings,
    aim,
    carve,
    colour_spread,
    coverage,
    outliers,
)

# Colours weigh less than silhouettes: they differ with the light, too.
_COLOUR_WEIGHT = 0.25
# What a rival must gain (in shares of silhouettes) to be believed against what the set states.
MARGIN = 0.03
# Half of what even the best focal length leaves uncovered, within these bounds.
FOCAL_MARGIN = (0.004, 0.012)
# A score that right cameras reach (0.9 to 1) and wrong axes do not (below 0.7).
_CONVINCING = 0.8
# A field of view between 4° and 127°.
_FOCAL_RANGE = (0.25, 15.0)
COARSE = (32, 24)  # picture side in pixels, grid
FACTORS = tuple(float(f) for f in 2 ** (np.arange(-4, 5) / 2))


@dataclass(frozen=True)
class Meaning:
    """One way to read the cameras: the files' format and the axes (see ``conventions``)."""

    cameras: CameraFormat
    axes: str

    def pinholes(self, seen: Sightings) -> Pinholes | None:
        """The cameras in the file's world, or None where the numbers make no cameras."""
        try:
            c2w = self.cameras.c2w(seen.transformations)
        except np.linalg.LinAlgError:
            return None
        focal = np.array([self.cameras.focal_widths(camera) for camera in seen.stored])
        if not np.isfinite(c2w).all() or not np.isfinite(focal).all():
            return None
        rotation = c2w[:, :3, :3]
        square = np.einsum("nij,nik->njk", rotation, rotation)
        if np.abs(square - np.eye(3)).max() > 0.05:
            return None
        axes = rotation @ camera_axes_matrix(self.axes).T
        return Pinholes(axes, c2w[:, :3, 3], focal)

    def mirrored(self, seen: Sightings) -> bool:
        """Return whether the axes come out left-handed in the file's world."""
        pinholes = self.pinholes(seen)
        return pinholes is not None and bool(np.linalg.det(pinholes.axes).mean() < 0)


@dataclass
class Verdict:
    """The outcome of the search.

    Attributes:
        stated, best: how the set says its cameras are meant, and what fits best.
        stated_fit, best_fit: median share of the silhouettes that the hull fills, in [0, 1].
        fits: subject → its own share under ``best``.
        spread: colours' disagreement under ``best``.
        outliers: subject → frames whose cameras fit no other view under ``best``.
    """

    stated: Meaning
    best: Meaning
    stated_fit: float
    best_fit: float
    fits: dict[str, float]
    spread: float
    outliers: dict[str, list[int]]


def all_axes() -> list[str]:
    """The 48 axes a camera can have, right-handed ones first."""
    pairs = (("right", "left"), ("down", "up"), ("forward", "back"))
    words = [" ".join(axes) for order in permutations(pairs) for axes in product(*order)]
    matrices = sorted(map(camera_axes_matrix, words), key=np.linalg.det, reverse=True)
    return [name_camera_axes(matrix) for matrix in matrices]


def fit(meaning: Meaning, seen: Sightings, grid: int, tolerance: int = 0) -> tuple[float, float]:
    """(share of the silhouettes that the hull fills, colour spread); (0, 1) for nonsense."""
    hull = _hull(meaning, seen, grid, tolerance)
    if hull is None:
        return 0.0, 1.0
    return float(coverage(hull, seen.masks).mean()), colour_spread(hull, seen.images)


def _hull(meaning: Meaning, seen: Sightings, grid: int, tolerance: int = 0) -> Hull | None:
    pinholes = meaning.pinholes(seen)
    if pinholes is None or not aim(pinholes, seen.masks).plausible:
        return None
    hull = carve(pinholes, seen.masks, grid, tolerance)
    return hull if hull.inside.any() else None


def _filled(meaning: Meaning, seen: Sightings, grid: int) -> float:
    hull = _hull(meaning, seen, grid)
    return 0.0 if hull is None else float(coverage(hull, seen.masks).mean())


def search(stated: Meaning, coarse: list[Sightings], fine: list[Sightings], grid: int) -> Verdict:
    """Find what the cameras mean.

    Args:
        stated: what the set says.
        coarse: small pictures of a few subjects, to try everything on.
        fine: larger pictures of the subjects, to compare focal lengths and single views on.
        grid: points along a side of the carved cube for ``fine``.
    """
    best = _search_axes(stated, coarse)
    wrong = _outliers(best, fine, grid)
    kept = [_without(seen, wrong.get(seen.name, [])) for seen in fine]
    best = _search_focal(best, kept[: len(coarse)], grid)
    if best != stated and wrong:
        wrong = _outliers(best, fine, grid)
        kept = [_without(seen, wrong.get(seen.name, [])) for seen in fine]
    scores = [fit(best, seen, grid) for seen in kept]
    before = [_filled(stated, seen, grid) for seen in kept] if best != stated else None
    fits = {seen.name: score[0] for seen, score in zip(fine, scores, strict=True)}
    best_fit = float(np.median(list(fits.values())))
    return Verdict(
        stated,
        best,
        best_fit if before is None else float(np.median(before)),
        best_fit,
        fits,
        float(np.mean([score[1] for score in scores])),
        {
            seen.name: sorted(seen.frames[i] for i in wrong[seen.name])
            for seen in fine
            if wrong.get(seen.name)
        },
    )


def _score(meaning: Meaning, subjects: list[Sightings], grid: int) -> float:
    """Higher is better; single wrong views are tolerated."""
    total = 0.0
    for seen in subjects:
        filled, spread = fit(meaning, seen, grid, tolerance=len(seen.frames) // 10)
        total += filled - _COLOUR_WEIGHT * min(spread, 1.0)
    return total / len(subjects)


def _search_axes(stated: Meaning, subjects: list[Sightings]) -> Meaning:
    """The best matrix kind and axes; the focal length as far as needed to see anything."""
    first = subjects[0]
    best, best_score = stated, _score(stated, subjects, COARSE[1])
    believed = best_score + MARGIN
    for focal in [stated.cameras, *_other_units(stated.cameras, first)]:
        for kind, axes in product(_kinds(first), all_axes()):
            meaning = Meaning(replace(focal, matrix=kind), axes)
            pinholes = meaning.pinholes(first)
            if meaning == stated or pinholes is None:
                continue
            if not aim(pinholes, first.masks).plausible:
                continue
            score = _score(meaning, subjects, COARSE[1])
            if score > max(believed, best_score):
                best, best_score = meaning, score
        if best_score > _CONVINCING:
            break  # another focal length is only needed where nothing fits with this one
    return best


def _kinds(first: Sightings) -> list[str]:
    """Kinds of matrix whose constant row or column is in its place."""
    corner = np.array([0.0, 0.0, 0.0, 1.0])
    by_rows = np.abs(first.transformations[:, 3] - corner).max() < 1e-3
    by_columns = np.abs(first.transformations[:, :, 3] - corner).max() < 1e-3
    wanted = {False: by_rows, True: by_columns}
    kinds = [kind for kind, (_, transposed) in MATRICES.items() if wanted[transposed]]
    return kinds or ["c2w", "w2c"]


def _plausible(cameras: CameraFormat, seen: Sightings) -> bool:
    values = [cameras.focal_widths(camera) for camera in seen.stored]
    return all(_FOCAL_RANGE[0] < value < _FOCAL_RANGE[1] for value in values)


def _other_units(stated: CameraFormat, first: Sightings) -> list[CameraFormat]:
    """Other units that give a possible field of view."""
    others: Iterable[CameraFormat] = (
        replace(stated, focal_unit=unit, focal_factor=1.0) for unit in FOCAL_UNITS
    )
    return [other for other in others if other != stated and _plausible(other, first)]


def _search_focal(meaning: Meaning, subjects: list[Sightings], grid: int) -> Meaning:
    """Named units first; a free factor only where no unit explains the silhouettes."""

    def score(cameras: CameraFormat) -> float:
        fits = [_filled(replace(meaning, cameras=cameras), seen, grid) for seen in subjects]
        return float(np.mean(fits))

    first = subjects[0]
    stated = meaning.cameras
    own = score(stated)
    scanned = [replace(stated, focal_factor=stated.focal_factor * f) for f in FACTORS if f != 1]
    free = {c: score(c) for c in scanned if _plausible(c, first)}
    named = {c: score(c) for c in _other_units(stated, first)}
    top = max([own, *free.values(), *named.values()])
    margin = float(np.clip((1 - top) / 2, *FOCAL_MARGIN))
    if top < own + margin:
        return meaning
    close = {c: value for c, value in named.items() if value > top - margin / 2}
    if close:
        return replace(meaning, cameras=max(close, key=lambda c: close[c]))
    best = max(free, key=lambda c: free[c]) if free else stated
    for step in (1.19, 1.09, 1.04):  # narrow the factor down around the best of the scan
        near = [replace(best, focal_factor=best.focal_factor * f) for f in (1 / step, step)]
        best = max([best, *near], key=score)
    best = replace(best, focal_factor=round(best.focal_factor, 4))
    return replace(meaning, cameras=best)


def _outliers(meaning: Meaning, subjects: list[Sightings], grid: int) -> dict[str, list[int]]:
    """Subject → indices of views that fit no other; none where the cameras fit nothing at all."""
    found: dict[str, list[int]] = {}
    for seen in subjects:
        pinholes = meaning.pinholes(seen)
        if pinholes is None or len(seen.frames) < 6 or not aim(pinholes, seen.masks).plausible:
            continue
        wrong = outliers(carve(pinholes, seen.masks, grid), seen.masks, len(seen.frames) // 4)
        if wrong:
            found[seen.name] = wrong
    return found


def _without(seen: Sightings, indices: list[int]) -> Sightings:
    return seen.pick([i for i in range(len(seen.frames)) if i not in indices])
