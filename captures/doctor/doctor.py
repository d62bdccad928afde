"""``triavatar doctor``: what would make training on a multi-view set look wrong, and its cure."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from captures.camera_files import CameraFormat
from captures.conventions import CONVENTIONS, camera_axes_matrix, name_camera_axes
from captures.description import FORMAT, VERSIONS
from captures.doctor.alpha import AlphaTally, check_alpha
from captures.doctor.camera_checks import check_cameras
from captures.doctor.camera_search import COARSE, Meaning, search
from captures.doctor.file_checks import check_files
from captures.doctor.findings import Finding, merge
from captures.doctor.findings_report import Diagnosis, as_json, print_report
from captures.doctor.inventory import (
    Reading,
    Subject,
    find_folders,
    read_conventions,
    read_subject,
    spread,
)
from captures.doctor.sample import look, shrink
from captures.doctor.silhouettes import Sightings
from captures.doctor.split_checks import check_splits
from captures.doctor.world import (
    Placed,
    check_extent,
    check_orientation,
    place,
    world_fix,
)
from runtime.config import check_settings, setting
from runtime.errors import UserError
from runtime.files import atomic_path, read_json, write_json
from runtime.progress import progress

BACKUP = "dataset.before_doctor.json"
# One cure may uncover the next fault (cameras can be judged once alpha is right).
_ROUNDS = 4


@dataclass
class DoctorConfig:
    """Find what would make training on a multi-view set look wrong, and cure it."""

    root: Path
    """Folder of the multi-view set."""
    fix: bool = False
    """Write the cures into the set's dataset.json (the old one is kept beside it); pictures and
    cameras are not touched."""
    json: Path | None = None
    """File to write the findings to as JSON."""
    convention: str | None = None
    """Camera convention of a set without dataset.json, e.g. rodinhd; searched for without."""
    geometry: bool = True
    """Carve the subjects out of space to check cameras, front, scale and centre; without, only
    files, splits and alpha are checked."""
    n_subjects: int = 24
    """Subjects looked at, evenly spread; every file of theirs is. 0 for all."""
    n_views: int = 24
    """Views of each subject that space is carved with, evenly spread; 0 for all."""
    n_decoded: int = 1000
    """Pictures decoded over all subjects, evenly spread, to find damaged and empty ones; those
    carved with come on top."""
    n_search: int = setting(2, at_least=1, at_most=10**6)
    """Subjects that the search for the cameras' meaning tries everything on."""
    n_carved: int = setting(10, at_least=1, at_most=10**6)
    """Subjects carved out of space to check single cameras, scale and centre."""
    size: int = setting(64, at_least=16, at_most=1024)
    """Width of the pictures that space is carved with, in pixels."""
    grid: int = setting(40, at_least=16, at_most=256)
    """Points along a side of the carved cube."""


def doctor(config: DoctorConfig) -> int:
    """Report the faults of a set and cure what ``dataset.json`` can express.

    Returns:
        The exit status: 1 where something was found (with ``fix``: where something is left).

    Raises:
        UserError: the folder is no set.
    """
    check_settings(config)
    start = time.perf_counter()
    diagnosis = diagnose(config)
    cured: list[Finding] = []
    if config.fix:
        for _ in range(_ROUNDS):
            curable = [finding for finding in diagnosis.findings if finding.fix is not None]
            if not curable:
                break
            apply(config.root, curable)
            cured += curable
            diagnosis = diagnose(config)
    print_report(config.root, diagnosis, cured, time.perf_counter() - start)
    if config.json is not None:
        write_json(config.json, as_json(config.root, diagnosis, cured))
    return 1 if diagnosis.findings else 0


def diagnose(config: DoctorConfig) -> Diagnosis:
    """Look at the set once; changes nothing."""
    root = config.root
    names = find_folders(root)
    reading = read_conventions(root, config.convention)
    kept = [name for name in names if reading.excluded(name) is not None]
    if not kept:
        nothing = "dataset.json leaves every subject out (objects.….exclude)"
        cure = f"cure the subjects' files and put the description back from {BACKUP}"
        return Diagnosis([Finding("nothing-left", nothing, cure)], len(names))
    chosen = spread(kept, config.n_subjects)
    many = len(chosen) > 50
    subjects = [
        read_subject(root / name, reading.excluded(name) or set())
        for name in progress(chosen, desc="files", unit="subject", disable=not many)
    ]
    out = Diagnosis(n_names=len(names), n_subjects=len(subjects))
    out.n_views = sum(len(subject.views) for subject in subjects)
    if len(chosen) < len(kept):
        out.notes.append(f"{len(kept) - len(chosen)} subjects not looked at (--n_subjects 0: all)")
    tally, decoded_each = AlphaTally(), config.n_decoded // len(subjects)
    sightings = [
        look(subject, reading, config.n_views, decoded_each, config.size, tally)
        for subject in progress(subjects, desc="pictures", unit="subject", disable=not many)
    ]
    out.n_decoded = tally.pictures
    out.findings += check_files(subjects, reading)  # after decoding: it finds broken ones
    out.findings += check_alpha(tally, reading)
    out.findings += check_splits(reading.description, names, _frames(subjects, reading))
    seen = [sighting for sighting in sightings if sighting is not None]
    if not config.geometry:
        if reading.fault:
            cure = "let the doctor look at the cameras too, without --no_geometry"
            out.findings.insert(0, _no_description(reading, cure, None))
        return out
    if not seen:
        out.notes.append("cameras not checked: fewer than four usable silhouettes of any subject")
        if reading.fault:
            out.findings.insert(0, _no_description(reading, "state the set's conventions", None))
        return out
    if any(finding.check == "inverted-alpha" for finding in out.findings):
        out.notes.append("cameras not checked: the alpha channels come first")
        return out
    _check_geometry(spread(seen, config.n_carved), reading, config, out)
    return out


def _frames(subjects: list[Subject], reading: Reading) -> set[int]:
    """Frame numbers of the subjects, those left out included."""
    return {
        frame
        for subject in subjects
        for frame in [*subject.views, *(reading.excluded(subject.name) or ())]
    }


def _check_geometry(
    seen: list[Sightings], reading: Reading, config: DoctorConfig, out: Diagnosis
) -> None:
    """Cameras, then the world; without a usable ``dataset.json`` both make one finding."""
    axes = name_camera_axes(camera_axes_matrix(reading.convention.camera_axes))
    stated = Meaning(reading.cameras, axes)
    portrait = reading.pictures.portrait_frame
    coarse = [shrink(sighting, COARSE[0]) for sighting in seen[: config.n_search]]
    verdict = search(stated, coarse, seen, config.grid)
    out.agreement, out.colour_spread = verdict.best_fit, verdict.spread
    found = check_cameras(verdict, seen, reading)
    good = [_without(sighting, verdict.outliers) for sighting in seen]
    placed = [place(verdict.best, sighting, config.grid, portrait) for sighting in good]
    placed = [subject for subject in placed if subject is not None]
    if any(finding.check == "cameras-disagree" for finding in found):
        out.notes.append("scale, centre and front not checked: the cameras come first")
        out.findings += found
        return
    world, turned = check_orientation(reading.convention.world_from_file, placed, portrait)
    if reading.fault:
        named = _named_convention(verdict.best, placed, portrait)
        world = CONVENTIONS[named].world_from_file if named else world
        fix: dict[str, Any] = {} if named else {"cameras": asdict(verdict.best.cameras)}
        final, extent = check_extent(world, placed)
        fix |= world_fix(final, verdict.best.axes)
        cure = "write one with " + (
            f'the convention "{named}", which fits the pictures'
            if named
            else f'camera axes "{verdict.best.axes}" and the world turned, scaled and centred as '
            "the pictures say"
        )
        out.findings.insert(0, _no_description(reading, cure, fix))
        out.findings += [f for f in found if f.check == "camera-outlier"]
        out.findings += [f for f in turned if f.check == "no-frontal-portrait"]
        return
    for finding in found:
        if finding.check in ("handedness", "camera-axes"):
            finding.fix = world_fix(world, verdict.best.axes)
    _, extent = check_extent(world, placed)
    out.findings += [*found, *turned, *extent]


def _without(sighting: Sightings, outliers: dict[str, list[int]]) -> Sightings:
    wrong = set(outliers.get(sighting.name, []))
    return sighting.pick([i for i, frame in enumerate(sighting.frames) if frame not in wrong])


def _named_convention(best: Meaning, placed: list[Placed], portrait: int) -> str | None:
    """The named convention under which everything fits, or None."""
    if best.cameras != CameraFormat():
        return None
    axes = camera_axes_matrix(best.axes)
    for name, convention in CONVENTIONS.items():
        world = convention.world_from_file
        if not (camera_axes_matrix(convention.camera_axes) == axes).all():
            continue
        turned, findings = check_orientation(world, placed, portrait)
        if (turned == world).all() and not findings and not check_extent(world, placed)[1]:
            return name
    return None


def _no_description(reading: Reading, cure: str, fix: dict[str, Any] | None) -> Finding:
    if fix is not None:
        fix = {"format": FORMAT, **fix}
    return Finding("no-description", str(reading.fault), cure, [], fix)


def apply(root: Path, findings: list[Finding]) -> None:
    """Write the findings' fixes into ``dataset.json``; the first original is kept beside it."""
    path = root / "dataset.json"
    description: dict[str, Any] = {}
    if path.exists():
        if not (root / BACKUP).exists():
            with atomic_path(root / BACKUP) as temporary:
                shutil.copyfile(path, temporary)
        try:
            content = read_json(path)
            description = content if isinstance(content, dict) else {}
        except UserError:
            description = {}  # the damaged original is in the backup
    for finding in findings:
        description = merge(description, finding.fix or {})
    write_json(path, {**description, "version": max(VERSIONS)})
