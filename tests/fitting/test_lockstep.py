"""Several subjects at once: the averaged gradient, and processes that share them."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from captures.multiview import MultiViewSet
from fitting.decoder_config import FitDecoderConfig
from fitting.fit_decoder import fit_decoder
from fitting.lockstep import lockstep
from fitting.ray_pool import RayPool
from fitting.subject_fit import FitSettings, SubjectFit, new_planes
from renderer.decoder import TriplaneDecoder
from renderer.fitted_set import FittedSet
from runtime.formats.settings_files import to_yaml
from runtime.processes import Processes
from runtime.runs import read_rows

EXAMPLE = Path(__file__).parents[2] / "data" / "example"
TINY = FitSettings(rays=128, steps=48, grid=16, smoothness_points=16, free_space_points=64)


def config(folder: Path, **changes) -> FitDecoderConfig:
    settings = {
        "root": EXAMPLE,
        "output_dir": folder,
        "image_size": 32,
        "plane_size": 12,
        "channels": 6,
        "color_channels": 4,
        "hidden": 16,
        "init": "mean",
        "rounds": 2,
        "inner_steps": 4,
        "fisher_batches": 2,
        "consolidation_weight": 100.0,
        "fit": TINY,
        "device": "cpu",
        "log_every": 2,
    }
    return FitDecoderConfig(**settings | changes)


def some_fits(decoder: TriplaneDecoder, count: int) -> list[SubjectFit]:
    data = MultiViewSet(EXAMPLE)
    fits = []
    for name in data.names[:count]:
        pool = RayPool(data.load(name, data.split_views("train", name)[:3], 32))
        planes = new_planes(name, 0, 6, 12, 0.1)
        fits.append(SubjectFit(name, pool, planes, decoder, TINY, seed=0, total=9))
    return fits


def test_the_decoder_takes_the_mean_gradient_and_each_triplane_its_own():
    torch.manual_seed(0)
    decoder = TriplaneDecoder(6, 4, 16)
    start = [p.detach().clone() for p in decoder.parameters()]
    alone = some_fits(decoder, 3)
    gradients = []
    for fit in alone:
        decoder.zero_grad()
        fit.backward()
        gradients.append([p.grad.clone() for p in decoder.parameters() if p.grad is not None])
        fit.update()
    assert all(len(found) == len(start) for found in gradients)
    together = some_fits(decoder, 3)
    optimizer = torch.optim.SGD(decoder.parameters(), lr=0.5)
    lockstep(together, [None] * 3, 0.0, decoder, optimizer, 3, Processes())
    for index, (before, after) in enumerate(zip(start, decoder.parameters(), strict=True)):
        mean = torch.stack([found[index] for found in gradients]).mean(0)
        torch.testing.assert_close(after.detach(), before - 0.5 * mean, rtol=1e-4, atol=1e-7)
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.planes, other.planes)


def start_processes(run: FitDecoderConfig, count: int = 2) -> list[subprocess.Popen]:
    """The run as ``count`` processes, with a launcher's environment."""
    file = run.output_dir.parent / f"{run.output_dir.name}.yaml"
    file.write_text(to_yaml(run))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "triavatar", "fit-decoder", "--config", str(file)],
            env={**os.environ, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]


def finish(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output[-3000:]


def assert_same_run(one: Path, other: Path) -> None:
    """Equal up to the order in which the processes' gradients are summed."""
    left, right = FittedSet.open(one), FittedSet.open(other)
    assert left.names == right.names and left.names
    for a, b in zip(left.decoder().parameters(), right.decoder().parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    for name in left.names:
        torch.testing.assert_close(left.load(name), right.load(name), rtol=0, atol=5e-3)
    losses = [[row["loss"] for row in read_rows(f / "stats.jsonl")] for f in (one, other)]
    torch.testing.assert_close(*map(torch.tensor, losses), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["identity", pytest.param("online", marks=pytest.mark.slow)])
def test_two_processes_compute_what_one_does(kind, tmp_path):
    # Groups of four and one: the second leaves a process without a subject.
    changes = {"end_idx": 5, "subjects_per_step": 4, "consolidation": kind}
    one, two = config(tmp_path / "one", **changes), config(tmp_path / "two", **changes)
    processes = start_processes(two)
    fit_decoder(one)
    finish(processes)
    assert_same_run(one.output_dir, two.output_dir)
    assert len(list((two.output_dir / "state" / "subjects").iterdir())) == 5


@pytest.mark.slow
def test_two_processes_killed_at_any_time_resume(tmp_path):
    changes = {"end_idx": 4, "subjects_per_step": 2, "rounds": 8}
    whole, killed = config(tmp_path / "whole", **changes), config(tmp_path / "killed", **changes)
    fit_decoder(whole)
    for visit in (2, 7, 11):
        processes = start_processes(killed)
        marks = killed.output_dir / "state" / "subjects"
        deadline = time.monotonic() + 120
        while not any(f".{v}." in p.name for p in marks.glob("*") for v in (visit, visit + 1)):
            assert time.monotonic() < deadline
            assert all(process.poll() is None for process in processes)
            time.sleep(0.002)
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    finish(start_processes(killed))
    assert_same_run(whole.output_dir, killed.output_dir)
    assert len(list((killed.output_dir / "state" / "subjects").iterdir())) == 4
