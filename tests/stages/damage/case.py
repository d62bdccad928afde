"""One damaged file, one command, and what came of it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import resource
import shutil
import signal
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import mkdtemp

from tests.stages.damage import clock
from tests.stages.damage.packed import damage_glb, damage_numbers, damage_photograph
from tests.stages.damage.raw import Damage, damage_raw
from tests.stages.damage.structured import (
    damage_json,
    damage_lines,
    damage_npy,
    damage_picture,
    damage_rows,
    damage_state,
    damage_table,
    damage_tensors,
    damage_yaml,
)
from tests.stages.damage.targets import TARGETS
from tests.stages.damage.world import World, own_world, write_index
from triavatar import cli

MOST_SECONDS = 60
MOST_BYTES = 2 * 2**30
LIBRARY_WORDS = re.compile(
    r"Traceback|Error\b|Exception|[Ee]rrno|<class|0x[0-9a-f]{6}|\btorch\.|NoneType|pydantic"
)
BY_SUFFIX = {
    ".json": damage_json,
    ".yaml": damage_yaml,
    ".jsonl": damage_rows,
    ".safetensors": damage_tensors,
    ".pt": damage_state,
    ".bin": damage_state,
    ".png": damage_picture,
    ".jpg": damage_photograph,
    ".npy": damage_npy,
    ".obj": damage_lines,
    ".ply": damage_lines,
    ".txt": damage_lines,
    ".csv": damage_table,
    ".tar": damage_numbers,
    ".mp4": damage_numbers,
    ".glb": damage_glb,
}
GOOD = ("sentence", "finding", "same results", "other content")


@dataclass
class Outcome:
    """What came of a case.

    Attributes:
        kind: one of :data:`GOOD` (refused in one sentence; a check's finding or some parts refused;
            done with the results of undamaged files; done, and the damage left a valid file with
            other content), or "traceback", "exception text", "hang", "memory", "code run",
            "data lost", "silently wrong".
        told: file and damage.
        words: the sentence, or the traceback's last lines.
    """

    number: int
    seed: int
    kind: str
    told: str
    words: str
    seconds: float = 0.0
    megabytes: float = 0.0


class Late(BaseException):
    """The command computes or waits for too long. No ``except Exception`` may swallow it."""


class Limits:
    """Ends a command that waits or takes more memory than it may."""

    def __enter__(self):
        self.before = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, self.before[1]))
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        self.resident = _megabytes("VmRSS")

        def late(*_):
            raise Late

        begun = clock.seconds()

        def perhaps_late(*_):
            if clock.seconds() - begun > 2 * MOST_SECONDS:
                raise Late
            signal.alarm(MOST_SECONDS)

        # Of computing; and, for whoever waits does not compute, of all but waiting for a core.
        signal.signal(signal.SIGPROF, late)
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
        signal.signal(signal.SIGALRM, perhaps_late)
        signal.alarm(2 * MOST_SECONDS)
        return self

    def __exit__(self, *_):
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, self.before)
        self.megabytes = _megabytes("VmHWM") - self.resident


def _megabytes(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def snapshot(folder: Path, but: Path) -> dict[Path, tuple[int, int, int]]:
    """Which files there are and when they were last written, but one or those of one folder."""
    found = {}
    for path in folder.rglob("*"):
        if path != but and but not in path.parents and not path.is_symlink() and path.is_file():
            status = path.stat()
            found[path] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found


def lost(before: dict[Path, tuple[int, int, int]], base: Path, world: World) -> list[Path]:
    """Files that are gone or say something else than those of the world they were taken from."""
    missing = []
    for path, known in before.items():
        if path.is_file():
            status = path.stat()
            if (status.st_ino, status.st_mtime_ns, status.st_size) == known:
                continue
            original = world.root.parent / path.relative_to(base)
            if original.is_file() and path.read_bytes() == original.read_bytes():
                continue
        missing.append(path)
    return missing


def results(folder: Path) -> dict[str, str]:
    """Hashes of what a command is run for: tensors, pictures, meshes, measurements."""
    kinds = (".safetensors", ".png", ".glb")
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.suffix in kinds and path.is_file() and "state" not in path.parts
    }


def place_of_results(own: World, folder: Path, number: int) -> Path:
    resumed = TARGETS[number].resumed
    return own.out / resumed if resumed else folder / "made"


def whole_results(world: World, number: int) -> dict[str, str]:
    """What a command makes of undamaged files; it also compiles what it needs."""
    target, folder = TARGETS[number], Path(mkdtemp(dir=world.root.parent.parent))
    own = own_world(world, folder / "world", target.resumed)
    assert list(own.root.parent.glob(target.files)), target
    with contextlib.redirect_stdout(io.StringIO()):
        assert cli.main(target.command(own, folder / "made")) == 0, target
    made = results(place_of_results(own, folder, number))
    shutil.rmtree(folder)
    return made


def run_case(world: World, number: int, seed: int, whole: dict[str, str]) -> Outcome:
    """Damage one file and run the command that reads it.

    Args:
        number: of the target.
        seed: of the damage.
        whole: see :func:`whole_results`.
    """
    folder = Path(mkdtemp(prefix="case", dir=world.root.parent.parent))
    try:
        return _run_case(world, folder, number, seed, whole)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _damage(file: Path, target: int, random: Random, mark: Path) -> Damage:
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)  # it shared its bytes with other worlds
    binary = "binary" in TARGETS[target].files
    structured = damage_numbers if binary else BY_SUFFIX.get(file.suffix)
    if structured is not None and random.random() < 0.7:
        return structured(file, random)
    return damage_raw(file, random, mark)


def _run_case(world: World, folder: Path, number: int, seed: int, whole: dict[str, str]) -> Outcome:
    target, random = TARGETS[number], Random(seed)
    own = own_world(world, folder / "world", target.resumed)
    base = own.root.parent
    file = random.choice(sorted(path for path in base.glob(target.files) if path.is_file()))
    done = _damage(file, number, random, folder / "planted")
    if target.indexed:
        write_index(base / "model")
    told = f"{file.relative_to(base)} ({done.told})"
    outcome = Outcome(number, seed, "", told, "")
    spared = base / "out" / target.resumed if target.resumed else file
    before = snapshot(base, spared)
    status, lines = _run(target.command(own, folder / "made"), outcome)
    if outcome.kind:
        return outcome
    sentences = [line for line in lines if line.startswith("error: ")]
    outcome.words = f"{status} {sentences[0] if sentences else ''}"
    text = [line for line in lines if LIBRARY_WORDS.search(line)]
    if (folder / "planted").exists():
        outcome.kind = "code run"
    elif gone := lost(before, base, world):
        outcome.kind, outcome.words = "data lost", str(gone[0])
    elif text or status not in (0, 1, 2) or (status == 2 and len(sentences) != 1):
        outcome.kind, outcome.words = "exception text", "\n".join(text or lines[-3:])[-600:]
    elif status == 2 and "memory of this machine" in sentences[0]:
        outcome.kind = "memory"
    elif status:
        outcome.kind = "sentence" if status == 2 else "finding"
    elif results(place_of_results(own, folder, number)) == whole and (whole or not done.sure):
        outcome.kind = "same results"
    else:
        outcome.kind = "silently wrong" if done.sure else "other content"
    return outcome


def _run(arguments: list[str], outcome: Outcome) -> tuple[int, list[str]]:
    """Exit status and printed lines; what went wrong is noted in ``outcome``."""
    out, err = io.StringIO(), io.StringIO()
    start, status, limits = time.process_time(), -1, Limits()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), limits:
            status = cli.main(arguments)
    except Late:
        outcome.kind = "hang"
    except MemoryError:
        outcome.kind = "memory"
    except BaseException as error:
        big = "allocate" in str(error) or "out of memory" in str(error)
        outcome.kind = "memory" if big else "traceback"
        outcome.words = traceback.format_exc()[-900:]
    outcome.seconds = round(time.process_time() - start, 2)
    outcome.megabytes = round(limits.megabytes, 1)
    return status, (out.getvalue() + err.getvalue()).splitlines()
