"""Every stage, killed part-way and started again with the same command, ends in the same place."""

import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.stages.forks import Job, run_jobs

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


@pytest.fixture(scope="module")
def killed(chain, tmp_path_factory) -> dict[str, Path]:
    """Stage → what it left when it was killed."""
    folder = tmp_path_factory.mktemp("killed")
    stages = {stage: folder / stage for stage in KILLED_AFTER}
    jobs = [Job(chain.arguments(s, out), renames=KILLED_AFTER[s]) for s, out in stages.items()]
    ends = run_jobs(jobs, folder, torch.get_num_threads())
    assert [end.status for end in ends] == [-signal.SIGKILL] * len(jobs)
    return stages


@pytest.mark.parametrize("stage", KILLED_AFTER)
def test_killed_and_resumed(chain, killed, stage):
    out = killed[stage]
    whole = weights(chain.out / stage)
    assert chain.run(stage, out) == 0
    resumed = weights(out)
    assert set(resumed) == set(whole)
    for file, tensors in whole.items():
        for name, tensor in tensors.items():
            assert torch.equal(resumed[file][name], tensor), f"{file}: {name}"
    # Nothing half-written is left beside it, such as .partial-… or .new_….
    assert [p for p in out.rglob(".*")] == []


def test_finished_stages_do_nothing_again(chain):
    """Running a finished command again keeps what is there, to the byte."""
    for stage in ("train-base", "fit-triplanes", "generate"):
        before = {f: os.stat(f).st_mtime_ns for f in (chain.out / stage).rglob("*.safetensors")}
        assert chain.run(stage, chain.out / stage) == 0
        after = {f: os.stat(f).st_mtime_ns for f in (chain.out / stage).rglob("*.safetensors")}
        assert before == after
