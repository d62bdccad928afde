"""Every stage, killed part-way and started again with the same command, ends in the same place."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

# Kills this process at the given file that appears under its final name (the moment of renaming
# is when a half-finished state would show).
KILLER = """
import os, signal, sys
left = int(sys.argv[1])
def counted(rename):
    def call(*arguments, **named):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(*arguments, **named)
    return call
os.replace, os.rename = counted(os.replace), counted(os.rename)
import torch
torch.set_num_threads(int(sys.argv[2]))
from triavatar.cli import main
sys.exit(main(sys.argv[3:]))
"""

# Stage → renames after which it is killed: past the first saves, before the last.
KILLED_AFTER = {
    "train-vae": 3,
    "encode-features": 2,
    "fit-decoder": 9,
    "fit-triplanes": 6,
    "train-base": 3,
    "train-upsampler": 3,
    "sample-base": 4,
    "sample-upsampler": 4,
    "generate": 10,
}


def weights(folder: Path) -> dict[str, dict]:
    """Everything a stage leaves for later stages, by file."""
    files = sorted(folder.rglob("*.safetensors"))
    return {str(f.relative_to(folder)): load_file(f) for f in files if "state" not in f.parts}


@pytest.mark.parametrize("stage", KILLED_AFTER)
def test_killed_and_resumed(chain, stage, tmp_path):
    import torch

    command = [str(KILLED_AFTER[stage]), str(torch.get_num_threads())]
    command += chain.arguments(stage, tmp_path / "out")
    killed = subprocess.run([sys.executable, "-c", KILLER, *command], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    whole = weights(chain.out / stage)
    assert chain.run(stage, tmp_path / "out") == 0
    resumed = weights(tmp_path / "out")
    assert set(resumed) == set(whole)
    for file, tensors in whole.items():
        for name, tensor in tensors.items():
            assert torch.equal(resumed[file][name], tensor), f"{file}: {name}"
    # Nothing half-written is left beside it, such as .partial-… or .new_….
    assert [p for p in (tmp_path / "out").rglob(".*")] == []


def test_finished_stages_do_nothing_again(chain):
    """Running a finished command again keeps what is there, to the byte."""
    for stage in ("train-base", "fit-triplanes", "generate"):
        before = {f: os.stat(f).st_mtime_ns for f in (chain.out / stage).rglob("*.safetensors")}
        assert chain.run(stage, chain.out / stage) == 0
        after = {f: os.stat(f).st_mtime_ns for f in (chain.out / stage).rglob("*.safetensors")}
        assert before == after
