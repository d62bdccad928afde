"""A full disk: one sentence, and the last state survives."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

# Stops the process from writing any file past a size, as a full disk would; Python then sees an
# OSError (EFBIG stands in for ENOSPC, which only a small file system gives).
LIMITED = """
import errno, os, resource, signal, sys
sys.dont_write_bytecode = True  # Python itself leaves half-written byte code
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
import torch
torch.set_num_threads(int(sys.argv[2]))
from triavatar.cli import main
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("stage", ["train-base", "fit-decoder", "sample-base"])
def test_full_disk_loses_nothing(chain, stage, tmp_path):
    folder = tmp_path / "out"
    command = ["4096", str(torch.get_num_threads()), *chain.arguments(stage, folder)]
    full = subprocess.run([sys.executable, "-c", LIMITED, *command], capture_output=True, text=True)
    errors = [line for line in full.stderr.splitlines() if line.startswith("error: ")]
    assert full.returncode == 2, full.stderr[-2000:]
    assert len(errors) == 1 and "disk is full" in errors[0]
    assert "Traceback" not in full.stderr
    assert not [p for p in folder.rglob("*.safetensors") if p.stat().st_size == 0]
    # With room again, the same command ends where an undisturbed run does.
    assert chain.run(stage, folder) == 0
    for file in sorted((chain.out / stage).rglob("*.safetensors")):
        if "state" not in file.parts:
            same = (folder / file.relative_to(chain.out / stage)).read_bytes()
            assert same == file.read_bytes(), file.name


def test_enospc_is_recognised_in_library_errors():
    from runtime.errors import is_disk_full

    assert is_disk_full(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert is_disk_full(RuntimeError("[enforce fail at inline_container.cc] . file write failed"))
    assert is_disk_full(Exception("Error while serializing: I/O error: No space left on device"))
    assert not is_disk_full(RuntimeError("shapes differ"))
    assert not is_disk_full(OSError(errno.ENOENT, "x", str(Path("y"))))
