"""Writing an avatar's folder: what a user looks at and takes away, and last the avatar itself.

::

    <folder>/avatars/<name>/view_<azimuth>.png, turntable.mp4, sheet.png    views
    <folder>/avatars/<name>/avatar.glb, .rigged.glb, .ply, .html            exports
    <folder>/avatars/<name>/samples.png, uncertainty.png, samples/          of several samples
    <folder>/avatars/<name>/report.html                                     all of it on one page
    <folder>/avatars/<name>/portrait.png, avatar.json                       written last
    <folder>/triplanes/<name>.safetensors
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runtime.errors import UserError
from runtime.progress import Stopwatch
from triavatar.avatar import Avatar
from triavatar.export.libraries import check_packages
from triavatar.export.settings import Format
from triavatar.render_avatar import ViewConfig, write_views
from triavatar.sheets import Cell, Row, draw_sheet, save_picture
from triavatar.written.report_page import write_report
from triavatar.written.samples import write_samples

USUAL: tuple[Format, ...] = ("glb", "rigged.glb", "ply", "html")
"""Exports that are made where nothing else is asked for and their packages are installed."""


def installed(formats: Sequence[Format] = USUAL) -> tuple[Format, ...]:
    """Return those formats whose packages are installed."""
    found = []
    for kind in formats:
        try:
            check_packages((kind,))
        except UserError:
            continue
        found.append(kind)
    return tuple(found)


def write_avatar(
    folder: Path,
    avatar: Avatar,
    views: ViewConfig,
    export: tuple[Format, ...] = (),
    samples: Sequence[Avatar] = (),
) -> None:
    """Write an avatar's views, exports, samples and report, then the avatar itself.

    Args:
        folder: of avatars that share a decoder.
        views: what to render.
        export: which files for other programs; one that can't be made becomes a warning.
        samples: others that look like the same portrait.
    """
    beside = folder / "avatars" / avatar.name
    watch = Stopwatch()
    stills = write_views(beside, avatar, views)
    _write_sheet(beside, avatar, views, stills)
    watch.lap("views")
    if samples:
        avatar.record["samples"] = write_samples(beside, avatar, samples, views)
        watch.lap("map of samples")
    if export:
        _export(beside, avatar, export)
        watch.lap("export")
    avatar.record["seconds"] = {**avatar.record.get("seconds", {}), **watch.laps}
    write_report(beside, avatar, views, stills)
    avatar.save(folder)


def _write_sheet(folder: Path, avatar: Avatar, views: ViewConfig, stills: np.ndarray) -> None:
    cells = [Cell(avatar.portrait, "portrait")]
    cells += [
        Cell(still, f"{azimuth:+.0f}°")
        for still, azimuth in zip(stills, views.azimuths, strict=True)
    ]
    sheet = draw_sheet([Row("", cells)], min(views.size, 256), avatar.name)
    save_picture(folder / "sheet.png", sheet)


def _export(folder: Path, avatar: Avatar, formats: tuple[Format, ...]) -> None:
    from triavatar.export.maker import take_away  # brings the export's kernels

    try:
        take_away(folder, avatar.planes, avatar.decoder, formats, title=avatar.name)
    except UserError as error:
        warning = f"no {', '.join('avatar.' + kind for kind in formats)}: {error}"
        avatar.record["warnings"] = [*avatar.record.get("warnings", []), warning]
