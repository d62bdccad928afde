"""Commands that shall die or find no room, each in a fork of one process that has all imported.

``python -m tests.stages.forks JOBS.json`` prints how each of them ended, as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.conftest import PROJECT


@dataclass
class Job:
    """A command line, and what befalls it.

    Attributes:
        command: arguments of triavatar.
        renames: it is killed at a file that appears under its final name after so many others
            (the moment of renaming is when a half-finished state would show).
        room: bytes that a file may have, as on a full disk; Python then sees an OSError (EFBIG
            stands in for ENOSPC, which only a small file system gives).
    """

    command: list[str]
    renames: int | None = None
    room: int | None = None


@dataclass
class End:
    """How a job ended: exit status, or the signal's number below 0; and what it said on stderr."""

    status: int
    said: str = ""


def run_jobs(jobs: Sequence[Job], folder: Path, threads: int) -> list[End]:
    """Run jobs in forks of another process, one after the other.

    Args:
        folder: for a file that names them.
        threads: of PyTorch.
    """
    file = folder / "jobs.json"
    file.write_text(json.dumps([asdict(job) for job in jobs]))
    command = [sys.executable, "-m", "tests.stages.forks", str(file), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 0, done.stderr[-2000:]
    return [End(**end) for end in json.loads(done.stdout.splitlines()[-1])]


def _counted(rename: Callable, left: int) -> Callable:
    def call(*arguments, **named):
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(*arguments, **named)

    return call


def _run(job: Job) -> End:
    from triavatar.cli import main

    # A killed command may leave processes that would hold a pipe open.
    reads, writes = os.pipe() if job.renames is None else (None, os.open(os.devnull, os.O_WRONLY))
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            os.dup2(writes, 1)
            os.dup2(writes, 2)
            if job.renames is not None:
                os.rename = os.replace = _counted(os.replace, job.renames)
            if job.room is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (job.room, job.room))
            status = main(job.command)
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(writes)
    said = ""
    if reads is not None:
        with open(reads, encoding="utf-8", errors="replace") as file:
            said = file.read()
    return End(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said)


if __name__ == "__main__":
    sys.dont_write_bytecode = True  # Python itself leaves half-written byte code
    import torch

    from triavatar.cli import find_stage

    torch.set_num_threads(int(sys.argv[2]))
    asked = [Job(**job) for job in json.loads(Path(sys.argv[1]).read_text())]
    from triavatar.stages import STAGES

    for job in asked:
        STAGES[find_stage(job.command)[0]].load()
    print(json.dumps([asdict(_run(job)) for job in asked]))
