"""Findings about what the cameras mean, from the search."""

from __future__ import annotations

from typing import Any

import numpy as np

from captures.camera_files import FOCAL_UNITS
from captures.doctor.camera_search import Meaning, Verdict
from captures.doctor.findings import Finding, exclusion, listed
from captures.doctor.inventory import Reading
from captures.doctor.silhouettes import Sightings

# Right cameras fill 0.97 and more of the silhouettes; below this nothing tried was right.
AGREEMENT = 0.94
_MATRIX_WORDS = {
    "c2w": "camera-to-world matrices",
    "w2c": "world-to-camera matrices (the inverse)",
    "c2w_transposed": "camera-to-world matrices written column by column",
    "w2c_transposed": "world-to-camera matrices written column by column",
}


def check_cameras(verdict: Verdict, seen: list[Sightings], reading: Reading) -> list[Finding]:
    """One finding for each part of the meaning that differs, and one for single wrong views."""
    stated, best = verdict.stated, verdict.best
    found: list[Finding] = []
    agreement = (
        f"silhouettes agree to {100 * verdict.stated_fit:.0f} %, "
        f"with the cure to {100 * verdict.best_fit:.0f} %"
    )
    if best.cameras.matrix != stated.cameras.matrix:
        found.append(
            Finding(
                "camera-matrix",
                f"the transformations are not what the set says ({agreement})",
                f"read them as {_MATRIX_WORDS[best.cameras.matrix]}",
                [],
                {"cameras": {"matrix": best.cameras.matrix}},
            )
        )
    if best.axes != stated.axes:
        found.append(_axes(verdict, seen[0], agreement, reading.convention.camera_axes))
    if _focal(best, seen) != _focal(stated, seen):
        found.append(_focal_finding(stated, best, seen, agreement))
    if verdict.best_fit < AGREEMENT:
        found.append(
            Finding(
                "cameras-disagree",
                f"the best reading of the cameras fills only {100 * verdict.best_fit:.0f} % of the "
                "silhouettes",
                "write the cameras again from the program that made the pictures: no axes, matrix "
                "kind or focal length makes these fit",
            )
        )
        return found
    odd = [name for name, fit in verdict.fits.items() if fit < AGREEMENT]
    if odd:
        found.append(
            Finding(
                "subject-disagrees",
                f"the cameras of {len(odd)} subject(s) do not fit their pictures, while the "
                f"others' do: {listed(odd)}",
                "they were made in another way than the rest: import them again, or leave them out",
                odd,
                {"objects": {name: {"exclude": "all"} for name in odd}},
            )
        )
    views = [(n, f) for n, frames in verdict.outliers.items() for f in frames if n not in odd]
    if views:
        found.append(_outliers(views, reading))
    return found


def _focal(meaning: Meaning, seen: list[Sightings]) -> np.ndarray | tuple[float, ...]:
    return tuple(round(meaning.cameras.focal_widths(c), 6) for c in seen[0].stored)


def _axes(verdict: Verdict, first: Sightings, agreement: str, stated: str) -> Finding:
    best = verdict.best
    if best.mirrored(first):
        return Finding(
            "handedness",
            f"cameras and pictures are mirror images of each other ({agreement})",
            f'read the file\'s world as left-handed with camera axes "{best.axes}" (Unity, Unreal '
            "and DirectX write such files; if the pictures were flipped instead, flip them back)",
            [],
            {"world": {"camera_axes": best.axes}},
        )
    return Finding(
        "camera-axes",
        f'the cameras\' axes are not "{stated}" ({agreement})',
        f'read them as "{best.axes}"' + (", Blender's too" if best.axes == "opengl" else ""),
        [],
        {"world": {"camera_axes": best.axes}},
    )


def _focal_finding(stated: Meaning, best: Meaning, seen: list[Sightings], agreement: str):
    before, after = (
        float(np.median([meaning.cameras.focal_widths(c) for s in seen for c in s.stored]))
        for meaning in (stated, best)
    )
    fix: dict[str, Any] = {
        "focal_unit": best.cameras.focal_unit,
        "focal_factor": best.cameras.focal_factor,
    }
    angles = [f"{np.degrees(2 * np.arctan(0.5 / f)):.1f}°" for f in (before, after)]
    message = f"the field of view is about {angles[1]}, not {angles[0]} ({agreement})"
    if best.cameras.focal_unit != stated.cameras.focal_unit:
        unit = FOCAL_UNITS[best.cameras.focal_unit]
        return Finding("focal-unit", message, f"read focal_length as {unit}", [], {"cameras": fix})
    factor = best.cameras.focal_factor / stated.cameras.focal_factor
    return Finding(
        "focal-factor",
        message,
        f"multiply the focal length by about {factor:.3g} (a wrong sensor_width, or pictures "
        "cropped or zoomed after rendering)",
        [],
        {"cameras": fix},
    )


def _outliers(views: list[tuple[str, int]], reading: Reading) -> Finding:
    names = [f"{name} frame {frame}" for name, frame in views]
    return Finding(
        "camera-outlier",
        f"{len(views)} view(s) do not show what the others of their subject show: {listed(names)}",
        "their pictures were swapped or their cameras are wrong: render them again, or leave "
        "them out",
        names,
        exclusion(views, reading.pictures.portrait_frame),
    )
