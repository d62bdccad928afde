"""Renders a set of random subjects in the multi-view layout."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from runtime.errors import UserError
from runtime.files import remove_stale, write_json
from runtime.ownership import one_writer
from runtime.progress import progress
from runtime.seeds import numpy_generator
from studio.assets import AssetFolder
from studio.drawing.raster import MOST_SAMPLES
from studio.looks.pose import Pose, sample_pose
from studio.people.random_subject import sample_subject
from studio.people.subject import rounded
from studio.people.words import labels, sentence
from studio.sets.records import (
    SUBJECT_FILE,
    Listing,
    begin_set,
    finished,
    held_out,
    made_with,
    subject_name,
)
from studio.sets.render_subject import PreparedSubject, prepare, render_views


@dataclass
class StudioRenderConfig:
    """Render seeded random subjects from cameras all round the head."""

    output_dir: Path = Path("data/studio")
    """Folder of the set; finished subjects in it are kept."""
    assets: Path | None = None
    """Folder with the clones makehuman/ and makehuman-assets/; default: $TRIAVATAR_ASSETS."""
    n_subjects: int = 64
    """Number of subjects in the set."""
    n_views: int = 300
    """Views of each subject; view 0 is the frontal portrait."""
    size: int = 512
    """Picture width and height in pixels."""
    supersampling: int = 2
    """Samples a side of every pixel, at most 8."""
    seed: int = 0
    """Same seed, same pictures."""
    test_subjects: int | None = None
    """How many subjects, the first ones, are held out as test identities; they stay the same when
    the set grows. Default: one in sixteen, at least 1, at most 64; none of one subject."""
    validation_subjects: int | None = None
    """How many subjects, those after the test identities, are held out for validation. Default:
    half as many as for testing, none of fewer than 20 subjects."""
    test_view_every: int = 6
    """Every so-manieth view (never view 0) is held out for testing; 0 holds out none."""
    variants: int = 1
    """Renders of each subject; the first rests and looks ahead, the others get random expressions,
    head rotations and gazes, and the same cameras."""
    maps: tuple[Literal["depth", "normal", "label"], ...] = ()
    """Maps to write beside every picture (data/README.md describes the files)."""
    low_elevation: float = -35.0
    """Lowest camera, degrees above the horizon."""
    high_elevation: float = 60.0
    """Highest camera, degrees above the horizon."""
    shard: str = "0/1"
    """Render only subjects i, i+n, i+2n, … of the set, written "i/n"; for several machines. "auto"
    takes i and n from the launcher: a SLURM array, srun's tasks or torchrun."""
    threads: int = 0
    """Threads that draw views; 0 shares the machine's cores among its torchrun processes. The
    pictures don't depend on it."""


# Variables by which launchers tell a process its number and how many there are.
_LAUNCHERS = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
    ("RANK", "WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
)


def parse_shard(text: str) -> tuple[int, int]:
    """ "i/n" → (i, n); "auto" → what the launcher says.

    Raises:
        UserError: not two integers with 0 <= i < n, or there is no launcher.
    """
    if text == "auto":
        found = [names for names in _LAUNCHERS if all(name in os.environ for name in names)]
        if not found:
            raise UserError(
                "shard 'auto' needs a launcher (SLURM array, srun or torchrun); give i/n, e.g. 0/8"
            )
        number, count = found[0]
        first = os.environ.get("SLURM_ARRAY_TASK_MIN", "0") if "ARRAY" in number else "0"
        text = f"{int(os.environ[number]) - int(first)}/{os.environ[count]}"
    try:
        i, n = (int(part) for part in text.split("/"))
    except ValueError:
        i, n = -1, 0
    if not 0 <= i < n:
        raise UserError(f"shard '{text}' is not of the form i/n with 0 <= i < n, e.g. 0/8")
    return i, n


def n_threads(asked: int) -> int:
    """`asked`, or for 0 this process's share of the cores."""
    if asked:
        return asked
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def render_set(config: StudioRenderConfig) -> None:
    """Renders the subjects of `config` that are not there yet; then writes dataset.json.

    Every subject (and variant) gets a folder with its pictures, camera files and subject.json (its
    parameters, written last: a folder that has it is finished). dataset.json lists the finished
    ones; it is written anew every minute, so that a set can be used while it grows.

    Raises:
        UserError: bad configuration, assets or output folder.
    """
    first, step = parse_shard(config.shard)
    _check(config)
    assets = AssetFolder(config.assets)
    root = Path(config.output_dir)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to output_dir {root}: {error.strerror}") from error
    # Shards write into one folder; each has its own subjects.
    with nullcontext() if step > 1 else one_writer(root):
        _render_all(root, config, assets, first, step)


def _render_all(
    root: Path, config: StudioRenderConfig, assets: AssetFolder, first: int, step: int
) -> None:
    begin_set(root, config)
    if step == 1:
        remove_stale(root)
    mine = [(i, v) for i in range(first, config.n_subjects, step) for v in range(config.variants)]
    to_do = [pair for pair in mine if not finished(root, config, *pair)]
    done = len(mine) - len(to_do)
    listing = Listing(root, config)
    listing.write()
    bar = progress(total=len(mine), initial=done, desc="studio render", unit="subject")
    try:
        # The next subject is prepared while the views of one are drawn.
        with ThreadPoolExecutor(1) as background:
            coming = deque()
            for place, pair in enumerate(to_do):
                for ahead in to_do[place + len(coming) : place + 2]:
                    coming.append(background.submit(_prepare, assets, config, *ahead))
                _render(coming.popleft().result(), config, *pair)
                bar.update()
                listing.write_now_and_then()
    except OSError as error:
        raise UserError(f"cannot write to output_dir {root}: {error}") from error
    finally:
        bar.close()
    listing.write()


def _check(config: StudioRenderConfig) -> None:
    for key in ("n_subjects", "n_views", "size", "supersampling", "variants"):
        if getattr(config, key) < 1:
            raise UserError(f"{key} is {getattr(config, key)}; it must be at least 1")
    if config.supersampling > MOST_SAMPLES:
        raise UserError(
            f"supersampling is {config.supersampling}; at most {MOST_SAMPLES} is possible"
        )
    held_out(config)
    if not -85 <= config.low_elevation <= config.high_elevation <= 85:
        raise UserError("elevations must satisfy -85 <= low_elevation <= high_elevation <= 85")


def _prepare(
    assets: AssetFolder, config: StudioRenderConfig, index: int, variant: int
) -> PreparedSubject:
    subject = sample_subject(assets, config.seed, index)
    rng = numpy_generator(config.seed, "pose", index, variant)
    return prepare(assets, subject, sample_pose(rng) if variant else Pose(), config.size)


def _render(
    prepared: PreparedSubject, config: StudioRenderConfig, index: int, variant: int
) -> None:
    """Renders one variant of one subject of the set into its folder."""
    from studio.looks.head_rig import head_rig

    rig = head_rig(
        config.n_views,
        config.size,
        low_degrees=config.low_elevation,
        high_degrees=config.high_elevation,
    )
    folder = Path(config.output_dir) / subject_name(index, variant)
    render_views(
        prepared.scene, rig, folder, config.maps, config.supersampling, n_threads(config.threads)
    )
    subject, pose = prepared.subject, prepared.pose
    described = {"labels": labels(subject, pose), "sentence": sentence(subject, pose)}
    write_json(
        folder / SUBJECT_FILE,
        {
            "render": made_with(config),
            "attributes": {**described, **subject.attributes(), "pose": rounded(asdict(pose))},
        },
    )
