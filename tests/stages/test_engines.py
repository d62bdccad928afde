"""The stages that spread their subjects: the same bytes from a Ray cluster as from this process."""

import hashlib
import os
from pathlib import Path

import pytest

from runtime.formats.tensor_files import load_tensors
from triavatar import cli


def results(folder: Path) -> dict[str, str]:
    """Name → SHA-256 of what a stage made: tensors (their files name metadata in any order),
    pictures, films."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".png", ".mp4"):
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.suffix == ".safetensors":
            for name, value in load_tensors(path)[0].items():
                digest = hashlib.sha256(value.numpy().tobytes()).hexdigest()
                found[f"{path.relative_to(folder)} {name}"] = digest
    return found


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two processes, which the stages find running."""
    ray = pytest.importorskip("ray")
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(3600)  # of the whole chain too, where it is not there yet
@pytest.mark.parametrize(
    "stage", ["encode-features", "sample-base", "sample-upsampler", "generate"]
)
def test_same_bytes_on_ray(chain, cluster, tmp_path, stage):
    assert chain.run(stage, tmp_path / "here", "--threads", "1") == 0
    assert chain.run(stage, tmp_path / "ray", "--threads", "1", "--engine", "ray") == 0
    expected = results(tmp_path / "here")
    assert len(expected) >= 4 and results(tmp_path / "ray") == expected


@pytest.mark.slow
@pytest.mark.timeout(3600)  # of the whole chain too, where it is not there yet
def test_same_drawings_on_ray(cluster, tmp_path):
    if not os.environ.get("TRIAVATAR_ASSETS"):
        pytest.skip("the studio's assets are not here")
    draw = ["studio", "render", "--n_subjects", "2", "--n_views", "2", "--size", "32"]
    draw += ["--supersampling", "1", "--portraits", "1", "--threads", "1"]
    assert cli.main([*draw, "--output_dir", str(tmp_path / "here")]) == 0
    assert cli.main([*draw, "--engine", "ray", "--output_dir", str(tmp_path / "ray")]) == 0
    expected = results(tmp_path / "here")
    assert len(expected) >= 6 and results(tmp_path / "ray") == expected
