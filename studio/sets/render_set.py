"""Renders a set of random subjects in the multi-view layout."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path

from runtime.config import check_settings
from runtime.errors import UserError
from runtime.files import remove_stale, write_json
from runtime.ownership import one_writer
from runtime.seeds import numpy_generator
from runtime.spread import Job, Report, Turns, spread
from runtime.spread.settings import parse_shard
from studio.assets import AssetFolder
from studio.looks.pose import Pose, sample_pose
from studio.people.random_subject import sample_subject
from studio.people.subject import rounded
from studio.people.words import labels, sentence
from studio.sets.portraits import draw_portraits, missing_portraits
from studio.sets.records import (
    SUBJECT_FILE,
    Listing,
    begin_set,
    finished,
    held_out,
    made_with,
    subject_name,
    subject_of,
)
from studio.sets.render_config import StudioRenderConfig
from studio.sets.render_subject import PreparedSubject, prepare, render_views


def n_threads(asked: int) -> int:
    """`asked`, or for 0 OMP_NUM_THREADS, this process's share; all cores without it."""
    share = asked or int(os.environ.get("OMP_NUM_THREADS", "0"))
    if share:
        return share
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def render_set(config: StudioRenderConfig) -> None:
    """Render the subjects of `config` that are not there yet; then write dataset.json.

    Every subject (and variant) gets a folder with its pictures, camera files and subject.json (its
    parameters, written last: a folder that has it is finished). dataset.json lists the finished
    ones; it is written anew every minute, so that a set can be used while it grows.

    Raises:
        UserError: bad configuration, assets or output folder.
    """
    check_settings(config)
    held_out(config)
    AssetFolder(config.assets)
    root = Path(config.output_dir)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to output_dir {root}: {error.strerror}") from error
    # Shards write into one folder; each has its own subjects.
    alone = parse_shard(config.shard)[1] == 1
    with one_writer(root) if alone else nullcontext():
        begin_set(root, config)
        if alone:
            remove_stale(root)
        _render_all(root, config).raise_failures()


def _render_all(root: Path, config: StudioRenderConfig) -> Report:
    job = Job(
        "studio render",
        SubjectRenderer,
        config,
        partial(_finished, config),
        root / ".turns",
        batch=16 if config.here else 1,  # within a batch, preparing and drawing overlap
    )
    pairs = [(i, v) for i in range(config.n_subjects) for v in range(config.variants)]
    listing = Listing(root, config)
    listing.write()
    report = spread(
        job,
        [subject_name(*pair) for pair in pairs],
        config,
        lambda name, done: listing.write_now_and_then(),
    )
    listing.write()
    return report


def _finished(config: StudioRenderConfig, name: str) -> bool:
    index, variant = subject_of(name)
    root = Path(config.output_dir)
    if not finished(root, config, index, variant):
        return False
    return variant > 0 or not missing_portraits(config, root / name)


class SubjectRenderer:
    """Renders subjects of the set into their folders."""

    def __init__(self, config: StudioRenderConfig):
        self.config = config
        self.assets = AssetFolder(config.assets)

    def __call__(self, names: list[str], turns: Turns) -> None:
        """Render one after the other; the next is prepared while the views of one are drawn."""
        to_do = [subject_of(name) for name in names]
        with ThreadPoolExecutor(1) as background:
            coming = deque()
            for place, pair in enumerate(to_do):
                for ahead in to_do[place + len(coming) : place + 2]:
                    coming.append(background.submit(_prepare, self.assets, self.config, *ahead))
                prepared = coming.popleft().result()
                if prepared is not None:
                    _render(prepared, self.config, *pair)
                if pair[1] == 0:
                    draw_portraits(self.assets, self.config, pair[0])
                turns.saved()
                turns.within((place + 1) / len(to_do))


def _prepare(
    assets: AssetFolder, config: StudioRenderConfig, index: int, variant: int
) -> PreparedSubject | None:
    """The scene of a subject whose views are still to be drawn."""
    if finished(Path(config.output_dir), config, index, variant):
        return None
    subject = sample_subject(assets, config.seed, index)
    rng = numpy_generator(config.seed, "pose", index, variant)
    return prepare(assets, subject, sample_pose(rng) if variant else Pose(), config.size)


def _render(
    prepared: PreparedSubject, config: StudioRenderConfig, index: int, variant: int
) -> None:
    """Render one variant of one subject of the set into its folder."""
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
