"""Missing, broken, mixed and repeated files."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable

from captures.doctor.findings import Finding, exclusion, listed
from captures.doctor.inventory import Reading, Subject, View
from captures.multiview import IMAGE_NAME, METADATA_NAME

# A fault in more than this share of all views is the set's, not single views'; excluding would
# then leave little.
_FEW = 0.25


def check_files(subjects: list[Subject], reading: Reading) -> list[Finding]:
    """Faults that show without decoding a picture."""
    found = [
        _broken(subjects, reading),
        _truncated_cameras(subjects, reading),
        _lost(subjects, reading),
        _without_alpha(subjects),
        *_sizes(subjects, reading),
        *_repeated(subjects, reading),
    ]
    return [finding for finding in found if finding is not None]


def _views(subjects: list[Subject]) -> Iterable[tuple[Subject, View]]:
    for subject in subjects:
        for view in subject.views.values():
            yield subject, view


def _path(subject: Subject, frame: int, name: str = IMAGE_NAME) -> str:
    return f"{subject.name}/{name.format(frame)}"


def _exclude(subjects: list[Subject], views: list[tuple[str, int]], reading: Reading):
    """The exclusion of views, or None where it would leave little of the set."""
    total = sum(len(subject.views) for subject in subjects)
    if len(views) > _FEW * total:
        return None
    return exclusion(views, reading.pictures.portrait_frame)


def _broken(subjects: list[Subject], reading: Reading) -> Finding | None:
    bad = [(s, v) for s, v in _views(subjects) if v.picture_fault and v.picture_fault != "missing"]
    if not bad:
        return None
    files = [_path(s, v.frame) for s, v in bad]
    return Finding(
        "unreadable-picture",
        f"{len(bad)} picture(s) cannot be read: {listed(files)} ({bad[0][1].picture_fault})",
        "render or copy them again, or leave these views out",
        files,
        _exclude(subjects, [(s.name, v.frame) for s, v in bad], reading),
    )


def _truncated_cameras(subjects: list[Subject], reading: Reading) -> Finding | None:
    bad = [(s, v) for s, v in _views(subjects) if v.camera_fault and v.camera_fault != "missing"]
    if not bad:
        return None
    files = [_path(s, v.frame, METADATA_NAME) for s, v in bad]
    return Finding(
        "unreadable-camera",
        f"{len(bad)} camera file(s) cannot be read: {listed(files)} ({bad[0][1].camera_fault})",
        "write them again, or leave these views out",
        files,
        _exclude(subjects, [(s.name, v.frame) for s, v in bad], reading),
    )


def _lost(subjects: list[Subject], reading: Reading) -> Finding | None:
    """Halves of views, and gaps among the frames that half the subjects have."""
    lost: list[tuple[str, int]] = []
    files: list[str] = []
    counts = Counter(frame for subject in subjects for frame in subject.views)
    portrait = reading.pictures.portrait_frame
    usual = {frame for frame, count in counts.items() if 2 * count >= len(subjects)} | {portrait}
    for subject in subjects:
        excluded = reading.excluded(subject.name) or set()
        last = max(subject.views, default=-1)
        for frame in sorted((usual | set(subject.views)) - excluded):
            view = subject.views.get(frame)
            if view is None and frame > last and frame != portrait:
                continue  # fewer views than others is no fault
            if view is None or view.picture_fault == "missing":
                files.append(_path(subject, frame))
            if view is None or view.camera_fault == "missing":
                files.append(_path(subject, frame, METADATA_NAME))
            if view is None or "missing" in (view.picture_fault, view.camera_fault):
                lost.append((subject.name, frame))
    if not lost:
        return None
    without_portrait = [name for name, frame in lost if frame == portrait]
    note = (
        f"; without the portrait (frame {portrait}) a subject is not trained on at all: "
        f"{listed(without_portrait)}"
        if without_portrait
        else ""
    )
    return Finding(
        "missing-file",
        f"{len(files)} file(s) of {len(lost)} view(s) are missing: {listed(files)}{note}",
        "render or copy them again, or leave these views out",
        files,
        _exclude(subjects, lost, reading),
    )


def _without_alpha(subjects: list[Subject]) -> Finding | None:
    bad = [
        _path(s, v.frame) for s, v in _views(subjects) if not v.picture_fault and not v.has_alpha
    ]
    if not bad:
        return None
    return Finding(
        "no-alpha",
        f"{len(bad)} picture(s) have no alpha channel: {listed(bad)}",
        "cut the background out and save RGBA PNGs (renderers call it a transparent film)",
        bad,
    )


def _sizes(subjects: list[Subject], reading: Reading) -> list[Finding]:
    seen = [(s, v) for s, v in _views(subjects) if not v.picture_fault]
    if not seen:
        return []
    found: list[Finding] = []
    sizes = Counter(v.size for _, v in seen)
    usual = sizes.most_common(1)[0][0]
    odd = [(s, v) for s, v in seen if v.size != usual]
    if odd:
        files = [_path(s, v.frame) for s, v in odd]
        fix = _exclude(subjects, [(s.name, v.frame) for s, v in odd], reading)
        most = f"{usual[0]}×{usual[1]}"
        found.append(
            Finding(
                "mixed-sizes",
                f"{len(odd)} of {len(seen)} pictures are not {most} pixels like most: "
                f"{listed(files)}",
                f"resize them to {most} (and their metadata's resolution), or leave them out",
                files,
                fix,
            )
        )
    if reading.cameras.resolution == "picture":
        return found
    stated = [(s, v) for s, v in seen if v.camera and (v.camera.width, v.camera.height) != v.size]
    outvoted = {(s.name, v.frame) for s, v in odd} if found and found[0].fix else set()
    stated = [(s, v) for s, v in stated if (s.name, v.frame) not in outvoted]
    if stated:
        first = stated[0][1]
        assert first.camera is not None
        square = all(
            v.camera is not None
            and abs(v.size[0] * v.camera.height - v.size[1] * v.camera.width) <= max(v.size)
            for _, v in stated
        )
        found.append(
            Finding(
                "resolution",
                f"{len(stated)} camera(s) state another resolution than their picture has: "
                f"{first.camera.width}×{first.camera.height} for a picture of "
                f"{first.size[0]}×{first.size[1]}",
                "the pictures were resized after rendering: take the resolution from the pictures"
                if square
                else "the pictures were cropped after rendering: crop none, or crop all centred "
                "and write the cameras again",
                [_path(s, v.frame, METADATA_NAME) for s, v in stated],
                {"cameras": {"resolution": "picture"}} if square else None,
            )
        )
    return found


def _repeated(subjects: list[Subject], reading: Reading) -> list[Finding]:
    """The same picture twice: files of equal length are compared by content."""
    by_length: dict[int, list[tuple[Subject, View]]] = defaultdict(list)
    for subject, view in _views(subjects):
        if not view.picture_fault:
            by_length[view.length].append((subject, view))
    groups: dict[tuple[int, bytes], list[tuple[Subject, View]]] = defaultdict(list)
    for length, members in by_length.items():
        if len(members) > 1:
            for subject, view in members:
                content = subject.picture_path(view.frame).read_bytes()
                groups[length, hashlib.sha256(content).digest()].append((subject, view))
    within: list[tuple[str, int]] = []
    across: Counter[tuple[str, str]] = Counter()
    named: list[str] = []
    for members in groups.values():
        first: dict[str, int] = {}
        for subject, view in members:
            if subject.name in first:
                within.append((subject.name, view.frame))
                named.append(f"{_path(subject, view.frame)} = frame {first[subject.name]}")
            first.setdefault(subject.name, view.frame)
        names = sorted(first)
        across.update((names[0], other) for other in names[1:])
    found: list[Finding] = []
    if within:
        found.append(
            Finding(
                "duplicate-view",
                f"{len(within)} picture(s) repeat another of the same subject: {listed(named)}",
                "render the right pictures, or leave the repeats out",
                [f"{name}/{IMAGE_NAME.format(frame)}" for name, frame in within],
                _exclude(subjects, within, reading),
            )
        )
    sizes = {subject.name: len(subject.views) for subject in subjects}
    twins = [pair for pair, count in across.items() if 2 * count > sizes[pair[1]]]
    if twins:
        found.append(
            Finding(
                "duplicate-subject",
                f"{len(twins)} subject(s) repeat another's pictures: "
                + listed([f"{b} = {a}" for a, b in twins]),
                "remove the repeated folders or leave them out",
                [b for _, b in twins],
                {"objects": {b: {"exclude": "all"} for _, b in twins}},
            )
        )
    return found
