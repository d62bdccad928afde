"""A full disk: one sentence, and the last state survives."""

import errno
import os
import sys
from pathlib import Path

import pytest
import torch

from tests.stages.forks import Job, run_jobs

STAGES = ("train-base", "fit-decoder", "sample-base")


@pytest.fixture(scope="module")
def without_room(chain, tmp_path_factory) -> dict:
    """Stage → (its folder, how it ended) where no file may have more than 4 KB."""
    folder = tmp_path_factory.mktemp("full")
    jobs = [Job(chain.arguments(stage, folder / stage), room=4096) for stage in STAGES]
    ends = run_jobs(jobs, folder, torch.get_num_threads())
    return {stage: (folder / stage, end) for stage, end in zip(STAGES, ends, strict=True)}


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("stage", STAGES)
def test_full_disk_loses_nothing(chain, without_room, stage):
    folder, full = without_room[stage]
    errors = [line for line in full.said.splitlines() if line.startswith("error: ")]
    assert full.status == 2, full.said[-2000:]
    assert len(errors) == 1 and "disk is full" in errors[0]
    assert "Traceback" not in full.said
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
