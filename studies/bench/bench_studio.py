"""Benchmark of the studio: what one subject costs, and from that what a set costs.

It does what `studio render` does for one subject, in a temporary folder, and extrapolates.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from runtime.config import check_settings, setting
from runtime.errors import UserError
from runtime.files import write_json, write_text
from studies.bench.timing import machine
from studio.assets import AssetFolder
from studio.drawing.raster import Camera, draw
from studio.looks.head_rig import head_rig
from studio.looks.pose import Pose
from studio.people.random_subject import sample_subject
from studio.sets.render_set import n_threads
from studio.sets.render_subject import prepare, render_views

GB = 1e9


@dataclass
class BenchStudioConfig:
    """Measure rendering one subject and extrapolate to a set: time, memory, disk."""

    assets: Path | None = None
    """Folder with the clones makehuman/ and makehuman-assets/; default: $TRIAVATAR_ASSETS."""
    hair: tuple[str, ...] = ("long01", "crop")
    """Hair styles to compare; the dearest of cards and of shells by default."""
    views: int = setting(300, at_least=1, at_most=10**5)
    """Views of the subject."""
    size: int = setting(512, at_least=1, at_most=8192)
    """Picture width and height in pixels."""
    supersampling: int = setting(2, at_least=1, at_most=8)
    """Samples a side of every pixel, at most 8."""
    maps: tuple[Literal["depth", "normal", "label"], ...] = ("depth", "normal", "label")
    """Maps written beside every picture."""
    seed: int = 0
    """Seed of the subject."""
    index: int = 1
    """Number of the subject in the set of that seed."""
    workers: int = 0
    """Threads that draw views; 0 takes every core."""
    jobs: tuple[int, ...] = (1000, 46000)
    """Subjects of the sets that are extrapolated."""
    json: Path | None = None
    """File for the figures."""
    table: Path | None = None
    """File for the Markdown table; it is printed in any case."""


def bench_studio(config: BenchStudioConfig) -> None:
    """Measure and report; see :class:`BenchStudioConfig`.

    Raises:
        UserError: an impossible number, an unknown hair style, or bad assets.
    """
    check_settings(config)
    assets = AssetFolder(config.assets)
    _check_styles(assets, config.hair)
    _compile(assets, config)
    rows = []
    for style in config.hair:
        rows.append(_measure(assets, config, style))
        rate = rows[-1]["views_per_second"]
        print(f"{style}: {rows[-1]['seconds']:.1f} s, {rate:.1f} views/s", flush=True)
    content = {
        "machine": machine(torch.device("cpu")),
        "workers": n_threads(config.workers),
        "views": config.views,
        "size": config.size,
        "supersampling": config.supersampling,
        "maps": list(config.maps),
        "rows": rows,
        "peak_mib": _peak_mib(),
        "sets": [
            {
                "hair": row["hair"],
                "subjects": job,
                "hours": row["seconds"] * job / 3600,
                "core_hours": row["cpu_seconds"] * job / 3600,
                "gb": row["bytes_per_view"] * config.views * job / GB,
            }
            for row in rows
            for job in config.jobs
        ],
    }
    table = _markdown(content)
    print("\n" + table)
    if config.json is not None:
        write_json(config.json, content)
    if config.table is not None:
        write_text(config.table, table)


def _check_styles(assets: AssetFolder, styles: tuple[str, ...]) -> None:
    from studio.hair.combed import COMBED_STYLES, DRAPE_STYLES
    from studio.hair.curls import CURL_STYLES
    from studio.hair.shells import SHELL_STYLES

    procedural = (*SHELL_STYLES, *CURL_STYLES, *COMBED_STYLES, *DRAPE_STYLES)
    known = ["bald", *procedural, *sorted(assets.proxies("hair"))]
    for style in styles:
        if style not in known:
            raise UserError(f"there is no hair style '{style}'; there are {', '.join(known)}")


def _compile(assets: AssetFolder, config: BenchStudioConfig) -> None:
    """Loads the kernels and the assets, which a set pays for once."""
    subject = replace(sample_subject(assets, config.seed, config.index), hair="buzz")
    rig = head_rig(1, 16)
    with tempfile.TemporaryDirectory() as folder:
        scene = prepare(assets, subject, Pose(), 16).scene
        draw(scene, Camera.of(rig, 0), config.supersampling)
        render_views(scene, rig, Path(folder), config.maps, config.supersampling, 1)


def _measure(assets: AssetFolder, config: BenchStudioConfig, style: str) -> dict[str, Any]:
    """Time, processor time and disk of one subject with hair `style`."""
    subject = replace(
        sample_subject(assets, config.seed, config.index), hair=style, hat="none", beard="none"
    )
    threads = n_threads(config.workers)
    with tempfile.TemporaryDirectory() as folder:
        begun, busy = time.perf_counter(), time.process_time()
        scene = prepare(assets, subject, Pose(), config.size).scene
        built = time.perf_counter()
        rig = head_rig(config.views, config.size)
        render_views(scene, rig, Path(folder), config.maps, config.supersampling, threads)
        ended, busy_end = time.perf_counter(), time.process_time()
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    return {
        "hair": style,
        "seconds": ended - begun,
        "build_seconds": built - begun,
        "views_per_second": config.views / (ended - built),
        "cpu_seconds": busy_end - busy,
        "bytes_per_view": size / config.views,
    }


def _peak_mib() -> float | None:
    """Most memory this process, all workers, has held; None where it cannot be measured."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


def _markdown(content: dict[str, Any]) -> str:
    about = content["machine"]
    maps = " + ".join(["RGBA", *content["maps"]])
    per_pixel, peak = content["supersampling"], content["peak_mib"]
    lines = [
        f"{about['device']} · {about['date']}",
        "",
        f"`{about['command']}`",
        "",
        f"{content['views']} views of one subject, {content['size']}², {per_pixel}×{per_pixel} "
        f"samples a pixel, {maps}; {content['workers']} workers; "
        f"peak memory {'unknown' if peak is None else f'{peak:.0f} MiB'}.",
        "",
        "| hair | seconds | of them build | views/s | core-seconds | kB a view |",
        "|---|---|---|---|---|---|",
    ]
    for row in content["rows"]:
        lines.append(
            f"| {row['hair']} | {row['seconds']:.1f} | {row['build_seconds']:.1f} | "
            f"{row['views_per_second']:.1f} | {row['cpu_seconds']:.1f} | "
            f"{row['bytes_per_view'] / 1e3:.0f} |"
        )
    lines += [
        "",
        "| hair | subjects | hours on this machine | core-hours | GB |",
        "|---|---|---|---|---|",
    ]
    for row in content["sets"]:
        lines.append(
            f"| {row['hair']} | {row['subjects']} | {row['hours']:.1f} | "
            f"{row['core_hours']:.0f} | {row['gb']:.0f} |"
        )
    return "\n".join(lines) + "\n"
