"""Damaged files of every format through the real main function.

Whatever is in a file: no traceback, one sentence without a library's words, no wait, no run on
memory, no code of the file run, and nothing lost that was there.
"""

from __future__ import annotations

import hashlib
import re
import resource
import shutil
import signal
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.stages.damage.raw import damage_raw
from tests.stages.damage.structured import BY_SUFFIX
from tests.stages.damage.targets import TARGETS, add_foreign_files, own_world
from triavatar import cli

MOST_SECONDS = 60
MOST_BYTES = 2 * 2**30
LIBRARY_WORDS = re.compile(
    r"Traceback|Error\b|Exception|errno|<class|0x[0-9a-f]{6}|\btorch\.|NoneType"
)


@pytest.fixture(scope="session")
def damageable(chain, tmp_path_factory):
    """The chain's folders and foreign captures, in a place of their own."""
    world = own_world(chain, tmp_path_factory.mktemp("damaged") / "world", "")
    add_foreign_files(world)
    for number in range(len(TARGETS)):
        check_whole(world, tmp_path_factory.mktemp("whole"), number)
    return world


def check_whole(world, folder: Path, number: int) -> None:
    """Undamaged, every command takes its files; it also compiles what it needs."""
    target = TARGETS[number]
    own = own_world(world, folder / "world", target.resumed)
    assert list(own.root.parent.glob(target.files)), target
    assert cli.main(target.command(own, folder / "made")) == 0, target
    shutil.rmtree(folder)


class Limits:
    """Ends the test when a command waits or takes more memory than it may."""

    def __enter__(self):
        self.before = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, self.before[1]))

        def late(*_):
            raise AssertionError(f"no end after {MOST_SECONDS} s")

        # Of computing; a busy machine may take longer, but whoever waits does not compute.
        signal.signal(signal.SIGPROF, late)
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
        signal.signal(signal.SIGALRM, late)
        signal.alarm(5 * MOST_SECONDS)

    def __exit__(self, *_):
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, self.before)


def contents(folder: Path, but: Path) -> dict[Path, bytes]:
    return {
        path: hashlib.sha256(path.read_bytes()).digest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and but not in (path, *path.parents)
    }


def damage_and_run(world, folder: Path, number: int, seed: int, capsys) -> str:
    """Damage one file and run the command that reads it; what was done."""
    target, random = TARGETS[number], Random(seed)
    own = own_world(world, folder / "world", target.resumed)
    base = own.root.parent
    file = random.choice(sorted(base.glob(target.files)))
    shutil.copyfile(file, folder / "copy")
    file.unlink()
    shutil.copyfile(folder / "copy", file)
    structured = BY_SUFFIX.get(file.suffix)
    if structured is not None and random.random() < 0.7:
        done = structured(file, random)
    else:
        done = damage_raw(file, random, folder / "planted")
    told = f"{file.relative_to(base)} ({done})"
    spared = base / "out" / target.resumed if target.resumed else file
    before = contents(base, spared) if file.exists() or file.is_symlink() else {}
    capsys.readouterr()
    with Limits():
        status = cli.main(target.command(own, folder / "made"))
    printed = capsys.readouterr()
    sentences = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert status in (0, 1, 2), told
    assert len(sentences) == (status == 2) or status == 1, (told, sentences)
    for sentence in [*sentences, *printed.out.splitlines()]:
        assert not LIBRARY_WORDS.search(sentence), (told, sentence)
    assert not (folder / "planted").exists(), told
    assert before.items() <= contents(base, spared).items(), told
    return f"{told}: {status} {sentences[0] if sentences else ''}"


def run_case(world, tmp_path_factory, capsys, number: int, seed: int) -> str:
    folder = tmp_path_factory.mktemp("case")
    try:
        return damage_and_run(world, folder, number, seed, capsys)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


PARTS = {"number": st.integers(0, len(TARGETS) - 1), "seed": st.integers(0, 2**32)}
COMMON = dict(
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@settings(max_examples=60, **COMMON)
@given(**PARTS)
def test_a_sample_of_damaged_files(damageable, tmp_path_factory, capsys, number, seed):
    run_case(damageable, tmp_path_factory, capsys, number, seed)


@pytest.mark.slow
@settings(max_examples=1000, **COMMON)
@given(**PARTS)
def test_many_damaged_files(damageable, tmp_path_factory, capsys, number, seed):
    run_case(damageable, tmp_path_factory, capsys, number, seed)
