"""Death at every single file operation of every stage that writes: the same command ends the work.

Each run is a fork of one process that has everything imported.
"""

import subprocess
import sys

import pytest

DRIVER = """
import hashlib, os, shutil, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from triavatar.cli import main

whole, folder = Path(sys.argv[1]), Path(sys.argv[2])
first, step = int(sys.argv[3]), int(sys.argv[4])
arguments = sys.argv[5:]
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "os.chmod",
           "shutil.rmtree", "shutil.copyfile", "os.utime")

def contents(folder):
    files = (f for f in sorted(folder.rglob("*.safetensors")) if "state" not in f.parts)
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

def die_at(left):
    def watch(event, details):
        nonlocal left
        if event == "open":
            path, mode, flags = details
            changes = isinstance(path, (str, bytes)) and bool(flags & (os.O_WRONLY | os.O_RDWR))
        else:
            path, changes = details[0] if details else None, event in CHANGES
        if not changes or not str(path).startswith(str(folder)):
            return
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)

def run(prepare):
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        prepare()
        code = 99
        try:
            code = main(arguments)
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitpid(child, 0)[1]

expected, count = contents(whole), 0
assert expected
for left in range(first, 10**6, step):
    shutil.rmtree(folder, ignore_errors=True)
    status = run(lambda: die_at(left))
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, (left, status)
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, (left, status)
    again = run(lambda: None)
    assert again == 0, ("not resumed after operation", left)
    assert contents(folder) == expected, ("other results after operation", left)
    leftovers = [str(p) for p in folder.rglob(".*") if p.name != ".turns"]
    assert not leftovers, (left, leftovers)
    count += 1
print(count)
"""
STAGES = ["encode-features", "fit-decoder", "fit-triplanes", "train-base", "sample-base"]


def die(chain, stage: str, folder, first: int, step: int) -> int:
    """Crash points that a stage was killed at, every ``step``-th from ``first`` on."""
    command = [str(chain.out / stage), str(folder), str(first), str(step)]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *command, *chain.arguments(stage, folder)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_every_crash_point(chain, stage, tmp_path):
    assert die(chain, stage, tmp_path / "out", 0, 1) >= 10
