"""Death at file operations of one command, and the same command again.

``python -m tests.stages.damage.crash FOLDER FIRST STEP COMMAND…``, where ``OUT`` in the command
stands for its output. The command is run to its end in this process first, which has then
everything imported and compiled; every further run is a fork of it.
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


def die_at(left: int, folder: Path) -> None:
    """Kill this process at a later file operation below a folder, after ``left`` of them."""

    def watch(event: str, details: tuple) -> None:
        nonlocal left
        if event == "open":
            path, _, flags = details
            changes = isinstance(path, str | bytes) and bool(flags & (os.O_WRONLY | os.O_RDWR))
        else:
            path, changes = details[0] if details else None, event in CHANGES
        if not changes or not str(path).startswith(str(folder)):
            return
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


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


def crash_everywhere(folder: Path, first: int, step: int, template: list[str]) -> int:
    """Kill a command at every ``step``-th file operation from ``first`` on; how often."""
    import torch
    from tqdm import tqdm

    from triavatar.cli import main

    torch.set_num_threads(1)
    tqdm.monitor_interval = 0  # its thread would not survive the fork
    whole, out = folder / "whole", folder / "out"

    def command(place: Path) -> list[str]:
        return [part.replace("OUT", str(place)) for part in template]

    assert main(command(whole)) == 0
    expected, count = contents(whole), 0
    assert expected
    for left in range(first, 10**6, step):
        shutil.rmtree(out, ignore_errors=True)
        status = run(command(out), lambda left=left: die_at(left, out))
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, (left, status)
            break
        assert os.WTERMSIG(status) == signal.SIGKILL, (left, status)
        assert run(command(out)) == 0, ("not resumed after operation", left)
        assert contents(out) == expected, ("other results after operation", left)
        leftovers = [str(path) for path in out.rglob(".*") if path.name != ".turns"]
        assert not leftovers, (left, leftovers)
        count += 1
    return count


if __name__ == "__main__":
    place, begin, every, *rest = sys.argv[1:]
    Path(place).mkdir(parents=True, exist_ok=True)
    done = crash_everywhere(Path(place), int(begin), int(every), rest)
    print(f"\ncrashed {done} times")
