"""Benchmark of stage 2 for many subjects: throughput, and what a whole job takes.

It runs stage 2 itself, in a temporary folder, on a few subjects and for a part of their steps;
the rest of the steps, the other subjects and the disk are extrapolated from that.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from captures.selection import SetConvention
from fitting.fit_triplanes import fit_triplanes
from fitting.subject_fit import FitSettings
from fitting.triplane_config import FitTriplanesConfig
from renderer.fitted_set import FittedSet
from runtime.config import own_first
from runtime.devices import select_device
from runtime.errors import UserError
from runtime.files import read_json, write_json, write_text
from studies.bench.timing import machine

GB = 1e9


@own_first
@dataclass
class BenchFitManyConfig(SetConvention):
    """Measure stage 2 on a few subjects and extrapolate to many: time and disk."""

    decoder: Path
    """Stage-1 run folder whose decoder is used."""
    root: Path = Path("data/example")
    """Multi-view set to fit."""
    subjects: int = 2
    """Subjects fitted by each process; the median counts."""
    measured_steps: int = 100
    """Steps measured of each subject."""
    iterations: int = 30000
    """Steps per subject of the job that is extrapolated."""
    image_size: int | None = None
    """Resize pictures to this many pixels; their own size without it."""
    init: Literal["mean", "stage1", "random"] = "mean"
    """As of fit-triplanes."""
    fit: FitSettings = field(default_factory=FitSettings)
    """As of fit-triplanes."""
    subjects_at_once: tuple[int, ...] = (1, 2)
    """Numbers of processes on the device to compare."""
    job: int = 46000
    """Subjects of the whole job."""
    devices: int = 32
    """Devices of the job besides one."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""
    json: Path | None = None
    """File for the figures."""
    table: Path | None = None
    """File for the Markdown table; it is printed in any case."""


def bench_fit_many(config: BenchFitManyConfig) -> None:
    """Measure and report; see :class:`BenchFitManyConfig`.

    Raises:
        UserError: the set has too few subjects for the most processes.
    """
    if config.subjects < 1 or not config.subjects_at_once or min(config.subjects_at_once) < 1:
        raise UserError("subjects and subjects_at_once must be 1 or more")
    rows = []
    for count in config.subjects_at_once:
        rows.append(_measure(config, count))
        print(f"{count} at once: {rows[-1]['seconds_per_subject']:.1f} s a subject", flush=True)
    shape = FittedSet.open(config.decoder).shape
    texels = shape[0] * shape[1] * shape[2] * shape[3]
    content = {
        "machine": machine(select_device(config.device)),
        "shape": list(shape),
        "iterations": config.iterations,
        "job": config.job,
        "devices": config.devices,
        "rows": rows,
        # A scale and an offset for each plane and channel come on top of the bytes.
        "disk_gb": {
            "float16": config.job * texels * 2 / GB,
            "uint8": config.job * (texels + shape[0] * shape[1] * 8) / GB,
        },
    }
    table = _markdown(content)
    print("\n" + table)
    if config.json is not None:
        write_json(config.json, content)
    if config.table is not None:
        write_text(config.table, table)


def _measure(config: BenchFitManyConfig, count: int) -> dict[str, Any]:
    """Run stage 2 with ``count`` processes; medians over the subjects."""
    with tempfile.TemporaryDirectory() as folder:
        run = FitTriplanesConfig(
            root=config.root,
            decoder=config.decoder,
            output_dir=Path(folder) / "run",
            convention=config.convention,
            end_idx=config.subjects * count,
            image_size=config.image_size,
            init=config.init,
            iterations=config.measured_steps,
            fit=config.fit,
            device=config.device,
            save_every=10**9,
            subjects_at_once=count,
        )
        warm = replace(run, output_dir=Path(folder) / "warm", end_idx=1, subjects_at_once=1)
        begun = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            if count == 1:  # in this process, which compiles its kernels first
                fit_triplanes(replace(warm, iterations=2))
                begun = time.perf_counter()
            fit_triplanes(run)
        wall = time.perf_counter() - begun
        records = [read_json(file) for file in (run.output_dir / "quality").iterdir()]
    if len(records) < config.subjects * count:
        raise UserError(
            f"{config.root} has {len(records)} subjects; {count} at once need "
            f"{config.subjects * count}, so lower subjects or subjects_at_once"
        )
    rate = statistics.median(record["steps_per_second"] for record in records)
    around = {
        part: statistics.median(record["seconds"][part] for record in records)
        for part in ("load", "save", "check")
    }
    alone = config.iterations / rate + sum(around.values())
    return {
        "at_once": count,
        "steps_per_second_each": rate,
        "seconds_around": around,
        "seconds_per_subject": alone / count,
        "measured_wall_seconds": wall,
    }


def _markdown(content: dict[str, Any]) -> str:
    about, shape = content["machine"], "×".join(map(str, content["shape"]))
    disk = content["disk_gb"]
    devices, job = content["devices"], content["job"]
    lines = [
        f"{about['device']} · torch {about['versions']['torch']} · {about['date']}",
        "",
        f"`{about['command']}`",
        "",
        f"Planes {shape}, {content['iterations']} steps a subject; {job} subjects:",
        "",
        "| at once | steps/s each | load + save + check, s | s/subject | "
        f"{job} on 1 device | on {devices} |",
        "|---|---|---|---|---|---|",
    ]
    for row in content["rows"]:
        days = row["seconds_per_subject"] * job / 86400
        around = " + ".join(f"{row['seconds_around'][k]:.1f}" for k in ("load", "save", "check"))
        lines.append(
            f"| {row['at_once']} | {row['steps_per_second_each']:.1f} | {around} | "
            f"{row['seconds_per_subject']:.1f} | {_duration(days)} | {_duration(days / devices)} |"
        )
    lines += ["", f"Disk: {disk['float16']:.0f} GB as float16, {disk['uint8']:.0f} GB as uint8."]
    return "\n".join(lines) + "\n"


def _duration(days: float) -> str:
    return f"{days:.1f} days" if days >= 1 else f"{24 * days:.1f} h"
