"""Records of a set's finished subjects: each subject's record, and dataset.json."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from captures.conventions import named_convention
from captures.description import read_description, write_description
from runtime.described import Described, read_described
from runtime.errors import UserError
from runtime.ownership import RECORD, begin
from runtime.version import VERSION
from studio.sets.render_config import StudioRenderConfig
from studio.sets.render_subject import CONVENTION

SUBJECT_FILE = "subject.json"
POPULATION = 2  # counts changes of what subjects a seed gives
_LIST_EVERY = 60.0  # seconds between two lists of the finished subjects


def subject_name(index: int, variant: int = 0) -> str:
    """Folder of a subject; variants after the first get a suffix."""
    return f"subject_{index:06d}" + (f"_v{variant:02d}" if variant else "")


def subject_of(name: str) -> tuple[int, int]:
    """(index, variant) of a subject's folder."""
    index, _, variant = name.removeprefix("subject_").partition("_v")
    return int(index), int(variant or 0)


def held_out(config: StudioRenderConfig) -> tuple[int, int]:
    """Return how many subjects are test and validation identities.

    Raises:
        UserError: no subject would be left for training.
    """
    n, test, validation = config.n_subjects, config.test_subjects, config.validation_subjects
    if test is None:
        test = min(max(1, n // 16), 64) if n > 1 else 0
    if validation is None:
        validation = test // 2 if n >= 20 else 0
    if test < 0 or validation < 0 or test + validation >= n:
        raise UserError(
            f"test_subjects {test} and validation_subjects {validation} must leave at least one of "
            f"n_subjects {n} for training"
        )
    return test, validation


def made_with(config: StudioRenderConfig) -> dict[str, Any]:
    """The settings that decide a subject's pictures."""
    keys = ("seed", "n_views", "size", "supersampling", "low_elevation", "high_elevation")
    made = {"population": POPULATION, **{key: getattr(config, key) for key in keys}}
    if config.maps:
        made["maps"] = sorted(config.maps)
    return made


class SubjectRecord(Described):
    """``subject.json``."""

    render: dict[str, Any]
    attributes: dict[str, Any]


def begin_set(root: Path, config: StudioRenderConfig) -> None:
    """Refuse to go on with another set; those made before folders had records are adopted."""
    if not (root / RECORD).exists() and (root / "dataset.json").exists():
        made = read_description(root / "dataset.json")[0].get("provenance")
        now = made_with(config)
        if isinstance(made, dict) and {key: made.get(key) for key in now} == now:
            return
    begin(root, "studio render", made_with(config))


def finished(root: Path, config: StudioRenderConfig, index: int, variant: int) -> bool:
    path = root / subject_name(index, variant) / SUBJECT_FILE
    if not path.exists():
        return False
    if read_described(SubjectRecord, path).render != made_with(config):
        raise UserError(
            f"{path} was rendered with other settings or by another version; choose another "
            "output_dir or delete it"
        )
    return True


class Listing:
    """Keeps dataset.json up to date: the finished subjects of all processes."""

    def __init__(self, root: Path, config: StudioRenderConfig):
        self.root, self.config = root, config
        self.test, self.validation = held_out(config)
        self.objects: dict[str, dict] = {}
        self.written = 0.0

    def write_now_and_then(self) -> None:
        if time.monotonic() - self.written > _LIST_EVERY:
            self.write()

    def write(self) -> None:
        """Write dataset.json, if any subject is finished."""
        config = self.config
        identities: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
        for index in range(config.n_subjects):
            for variant in range(config.variants):
                name = subject_name(index, variant)
                if name not in self.objects:
                    if not finished(self.root, config, index, variant):
                        continue
                    attributes = read_described(
                        SubjectRecord, self.root / name / SUBJECT_FILE
                    ).attributes
                    seed = [config.seed, index, variant]
                    self.objects[name] = {"seed": seed, "attributes": attributes}
                identities[self._split(index)].append(name)
        if self.objects:
            _describe(self.root, config, identities, dict(sorted(self.objects.items())))
        self.written = time.monotonic()

    def _split(self, index: int) -> str:
        if index < self.test:
            return "test"
        return "validation" if index < self.test + self.validation else "train"


def _describe(
    root: Path, config: StudioRenderConfig, identities: dict[str, list[str]], objects: dict
) -> None:
    every = config.test_view_every
    test = [v for v in range(config.n_views) if every and v and v % every == every - 1]
    write_description(
        root,
        named_convention(CONVENTION),
        identities=identities,
        views={
            "train": [v for v in range(config.n_views) if v not in test],
            "validation": [],
            "test": test,
        },
        objects=objects,
        provenance={
            "generator": "triavatar studio",
            "code_version": VERSION,
            "assets": "MakeHuman community assets, CC0 1.0",
            "n_subjects": config.n_subjects,
            **made_with(config),
        },
        license="CC0-1.0",
    )
