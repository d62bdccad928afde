"""A full disk is known as such, whatever words a library has for it."""

import subprocess
import sys

import pytest

SAVE = """
import resource, signal, sys
from pathlib import Path
import torch
from runtime.errors import is_disk_full
from runtime.files import atomic_path, noticing_full_disk
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
state = {"step": 3, "planes": torch.ones(3000), "more": [torch.ones(500), {"a": torch.ones(7)}]}
folder = Path(sys.argv[1])
for limit in range(1, 15000, 400):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with atomic_path(folder / "state.pt") as temporary:
            torch.save(state, temporary)
    except Exception as error:
        assert is_disk_full(error), (limit, error)
    else:
        raise SystemExit(f"saved at {limit}")
assert not list(folder.iterdir())
try:
    with noticing_full_disk(folder):
        raise RuntimeError("some words of a library")
except OSError as error:
    assert is_disk_full(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    with noticing_full_disk(folder):
        raise RuntimeError("a fault of ours")
except RuntimeError:
    print("whole")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_FSIZE")
def test_every_size_at_which_a_disk_may_be_full(tmp_path, project):
    done = subprocess.run(
        [sys.executable, "-B", "-c", SAVE, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=project,
    )
    assert done.stdout == "whole\n", done.stderr[-2000:]
