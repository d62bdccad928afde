"""Death at every single file operation of every stage that writes: the same command ends the work.

Results are the same to the byte, and nothing half-written is left beside them.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.stages.damage.targets import (
    COLMAP,
    FITTED,
    MESHES,
    bundle,
    generate,
    importer,
    photograph,
    render,
    stage,
    train_likeness,
)

STAGES = {
    name: stage(name)
    for name in ("train-vae", "encode-features", "fit-decoder", "fit-triplanes", "train-base")
}
STAGES |= {
    name: stage(name) for name in ("train-upsampler", "sample-base", "sample-upsampler", "evaluate")
}
STAGES |= {
    "train-likeness": train_likeness,
    "bundle": bundle,
    "generate": generate,
    "render": render(f"{FITTED}/triplanes/blue.safetensors"),
    "portrait": photograph,
    "import-transforms": importer("transforms", "transforms"),
    "import-colmap": importer("colmap", "colmap", *COLMAP),
    "import-meshes": importer("meshes", "meshes", *MESHES),
}


def crash(world, name: str, folder: Path, first: int = 0, step: int = 1) -> int:
    """Points that a stage was killed at, every ``step``-th from ``first`` on."""
    command = STAGES[name](world, Path("OUT"))
    arguments = [str(folder), str(first), str(step), *command]
    done = subprocess.run(
        [sys.executable, "-m", "tests.stages.damage.crash", *arguments],
        capture_output=True,
        text=True,
        cwd=PROJECT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout.split()[-2])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", STAGES)
def test_every_crash_point(foreign, name, tmp_path):
    assert crash(foreign, name, tmp_path) >= 3
