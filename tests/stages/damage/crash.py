"""Death at file operations of one command, and the same command again.

``python -m tests.stages.damage.crash FOLDER POINTS COMMAND…``, where ``OUT`` in the command stands
for its output, and POINTS for how many of its file operations it is killed at, one after the other,
spread over all; 0 for every one. The command is run to its end in this process first, which has
then everything imported and compiled; every further run is a fork of it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

CHANGES = (
    *("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "os.chmod"),
    *("shutil.rmtree", "shutil.copyfile", "os.utime"),
)
RESULTS = re.compile(r".*\.(safetensors|png|glb)|dataset\.json|metrics\.json|bundle\.json")


def contents(folder: Path) -> dict[str, str]:
    """Hashes of what a command is run for."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and RESULTS.fullmatch(path.name) and "state" not in path.parts
    }


class Watch:
    """Counts file operations below a folder, and kills this process at one of them.

    Attributes:
        folder: None for nowhere.
        count: of operations.
        last: the operation to die at, from 0; None for none.
    """

    folder: Path | None = None
    count = 0
    last: int | None = None

    def __init__(self) -> None:
        sys.addaudithook(self)

    def begin(self, folder: Path | None, last: int | None = None) -> None:
        """Count from 0 in another folder."""
        self.folder, self.count, self.last = folder, 0, last

    def __call__(self, event: str, details: tuple) -> None:
        """Look at what Python is about to do."""
        if self.folder is None:
            return
        if event == "open":
            path, _, flags = details
            changes = isinstance(path, str | bytes) and bool(flags & (os.O_WRONLY | os.O_RDWR))
        else:
            path, changes = details[0] if details else None, event in CHANGES
        if not changes or not str(path).startswith(str(self.folder)):
            return
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1


def run(command: list[str], prepare: Callable[[], None] = lambda: None) -> int:
    """Run a command in a fork; how that ended."""
    from triavatar.cli import main

    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        code = 99
        try:
            prepare()
            code = main(command)
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitpid(child, 0)[1]


def spread(points: int, operations: int) -> list[int]:
    """Which of so many operations to die at; 0 points for all."""
    if not 1 < points < operations:
        return list(range(operations))[: points or None]
    return [round(i * (operations - 1) / (points - 1)) for i in range(points)]


def crash_everywhere(folder: Path, points: int, template: list[str]) -> tuple[int, int]:
    """Kill a command at some or all of its file operations; at how many, of how many."""
    import torch
    from tqdm import tqdm

    from triavatar.cli import main

    torch.set_num_threads(1)
    tqdm.monitor_interval = 0  # its thread would not survive the fork
    whole, out, watch = folder / "whole", folder / "out", Watch()

    def command(place: Path) -> list[str]:
        return [part.replace("OUT", str(place)) for part in template]

    watch.begin(whole)
    assert main(command(whole)) == 0
    operations, expected, count = watch.count, contents(whole), 0
    watch.begin(None)
    assert expected
    for left in spread(points, operations):
        shutil.rmtree(out, ignore_errors=True)
        status = run(command(out), lambda left=left: watch.begin(out, left))
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, (left, status)
            break
        assert os.WTERMSIG(status) == signal.SIGKILL, (left, status)
        assert run(command(out)) == 0, ("not resumed after operation", left)
        assert contents(out) == expected, ("other results after operation", left)
        leftovers = [str(path) for path in out.rglob(".*") if path.name != ".turns"]
        assert not leftovers, (left, leftovers)
        count += 1
    return count, operations


if __name__ == "__main__":
    place, most, *rest = sys.argv[1:]
    Path(place).mkdir(parents=True, exist_ok=True)
    done, known = crash_everywhere(Path(place), int(most), rest)
    print(f"\nkilled at {done} of {known}")
