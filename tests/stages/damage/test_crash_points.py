"""Death at every single file operation of every stage that writes: the same command ends the work.

Results are the same to the byte, and nothing half-written is left beside them.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.stages.damage.commands import (
    COLMAP,
    FITTED,
    MESHES,
    bundle,
    fit,
    generate,
    importer,
    likeness,
    pack,
    photograph,
    render,
    report,
    rigged,
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
    "generate with likeness": likeness,
    "fit": fit("set/blue"),
    "bundle with a rig": rigged,
    "triplanes pack": pack,
    "report": report,
}
SAMPLED = "TRIAVATAR_CRASH_POINTS"
"""Variable: how many of a stage's file operations to die at, spread over all; all without it."""


def crash(world, name: str, folder: Path, points: int = 0) -> tuple[int, int]:
    """How many points a stage was killed at, and how many file operations it has."""
    command = STAGES[name](world, Path("OUT"))
    arguments = [str(folder), str(points), *command]
    done = subprocess.run(
        [sys.executable, "-m", "tests.stages.damage.crash", *arguments],
        capture_output=True,
        text=True,
        cwd=PROJECT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    killed, _, operations = done.stdout.split()[-3:]
    return int(killed), int(operations)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", STAGES)
def test_every_crash_point(foreign, name, tmp_path):
    points = int(os.environ.get(SAMPLED, "0"))
    killed, operations = crash(foreign, name, tmp_path, points)
    print(f"{name}: killed at {killed} of {operations} file operations")
    assert operations >= 3 and killed == (min(points, operations) if points else operations)
