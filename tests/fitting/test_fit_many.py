"""Stage 2 shared by processes: killed ones are followed, failures are listed, nothing is lost."""

import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fitting.fit_triplanes import fit_triplanes
from fitting.subject_fit import FitSettings
from fitting.triplane_config import FitTriplanesConfig, fits_at_once
from renderer.fitted_set import FittedSet
from runtime.errors import PartialFailure
from runtime.files import read_json
from tests.scenes import random_decoder, write_spheres

TINY = FitSettings(rays=64, steps=32, grid=8, smoothness_weight=0.0, free_space_points=16)


@pytest.fixture
def config(tmp_path) -> FitTriplanesConfig:
    """Six subjects of tiny pictures; starts from noise, as the decoder has no triplanes."""
    write_spheres(tmp_path / "set", subjects=6, views=4, size=12)
    FittedSet.create(tmp_path / "stage1", random_decoder(), (3, 6, 8, 8))
    return FitTriplanesConfig(
        root=tmp_path / "set",
        decoder=tmp_path / "stage1",
        output_dir=tmp_path / "run",
        init="random",
        iterations=4,
        fit=TINY,
        device="cpu",
        save_every=2,
        log_every=2,
    )


def damage(subject: Path) -> bytes:
    """Cut a picture short; what it held."""
    picture = subject / "img_proc_fg_000001.png"
    content = picture.read_bytes()
    picture.write_bytes(content[:40])
    return content


def triplanes(folder: Path) -> dict[str, torch.Tensor]:
    fitted = FittedSet.open(folder)
    return {name: fitted.load(name) for name in fitted.names}


def test_a_damaged_subject_is_listed_and_the_rest_finish(config):
    subject = config.root / "subject_000"
    content = damage(subject)
    with pytest.raises(
        PartialFailure, match="1 of 6 subjects failed.*\n.*subject_000: .*img_proc_fg_000001.png"
    ):
        fit_triplanes(config)
    fitted = FittedSet.open(config.output_dir)
    assert fitted.names == [f"subject_{k:03d}" for k in range(1, 6)]
    quality = read_json(config.output_dir / "quality.json")
    assert set(quality["subjects"]) == set(fitted.names)
    (subject / "img_proc_fg_000001.png").write_bytes(content)
    fit_triplanes(config)
    assert len(fitted.names) == 6
    assert not list((config.output_dir / "failures").iterdir())
    assert not (config.output_dir / "state" / "turns").exists()


def test_the_record_of_a_subject(config):
    fit_triplanes(config)
    record = read_json(config.output_dir / "quality" / "subject_003.json")
    assert record["steps"] == 4 and 0 < record["ssim"] < 1 and record["psnr"] > 0
    assert set(record["seconds"]) == {"load", "fit", "save", "check"}
    assert len(record["loss"]) == 4
    assert (config.output_dir / "images" / "subject_003.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_same_bytes_whatever_the_engine(config, tmp_path, engine):
    """Two processes against this one, with the same number of threads; one subject is damaged."""
    if engine == "ray":
        pytest.importorskip("ray")
    damage(config.root / "subject_004")
    here = replace(config, output_dir=tmp_path / "here", iterations=24, threads=1)
    other = replace(here, output_dir=tmp_path / "other", engine=engine, subjects_at_once=2)
    for settings in (here, other):
        with pytest.raises(PartialFailure, match="1 of 6 subjects failed.*\n.*subject_004"):
            fit_triplanes(settings)
    expected, got = triplanes(tmp_path / "here"), triplanes(tmp_path / "other")
    assert set(got) == set(expected) and len(got) == 5
    assert all(torch.equal(got[name], planes) for name, planes in expected.items())
    for folder in ("here", "other"):
        assert set(read_json(tmp_path / folder / "quality.json")["subjects"]) == set(got)
    assert [p for p in (tmp_path / "other").rglob(".*")] == []


# Runs the same command in several processes at once; those that are killed are started again.
FOSTER = """
import os, pickle, random, signal, sys, time
import torch
torch.set_num_threads(1)
from fitting.fit_triplanes import fit_triplanes
from runtime.errors import PartialFailure
config = pickle.load(open(sys.argv[1], "rb"))
log, seed, kills = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
rename = os.replace
def counted(source, target):
    rename(source, target)
    if os.path.basename(os.path.dirname(target)) == "quality":
        with open(log, "a") as file:
            file.write(os.path.basename(target) + "\\n")
os.replace = counted
def start(rank):
    pid = os.fork()
    if pid == 0:
        try:
            fit_triplanes(config)
        except PartialFailure:
            os._exit(1)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(3)
        os._exit(0)
    return pid
draw = random.Random(seed)
running = {start(rank): rank for rank in range(8)}
ends = set()
while running:
    time.sleep(draw.uniform(0.02, 0.3))
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG) if running else (0, 0)
        if pid == 0:
            break
        rank = running.pop(pid)
        if os.WIFSIGNALED(status):
            running[start(rank)] = rank
        else:
            ends.add(os.WEXITSTATUS(status))
    if kills and running:
        kills -= 1
        os.kill(draw.choice(list(running)), signal.SIGKILL)
print("ends", sorted(ends), "kills left", kills)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_eight_workers_killed_at_random_lose_nothing(config, tmp_path):
    """64 subjects, one of them damaged; every other is finished exactly once, to the bit."""
    shutil.rmtree(config.root)
    write_spheres(config.root, subjects=64, views=4, size=12)
    damage(config.root / "subject_017")
    whole = replace(config, output_dir=tmp_path / "whole", iterations=24)
    with pytest.raises(PartialFailure):
        fit_triplanes(whole)
    shared = replace(whole, output_dir=tmp_path / "shared")
    (tmp_path / "config.pickle").write_bytes(pickle.dumps(shared))
    command = [str(tmp_path / "config.pickle"), str(tmp_path / "log"), "5", "40"]
    ran = subprocess.run(
        [sys.executable, "-c", FOSTER, *command],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert ran.stdout.endswith("ends [1] kills left 0\n"), ran.stdout + ran.stderr[-3000:]
    finished = (tmp_path / "log").read_text().split()
    assert sorted(finished) == sorted(set(finished)) and len(finished) == 63
    expected, got = triplanes(tmp_path / "whole"), triplanes(tmp_path / "shared")
    assert set(got) == set(expected) and len(got) == 63
    assert all(torch.equal(got[name], planes) for name, planes in expected.items())
    assert set(read_json(tmp_path / "shared" / "quality.json")["subjects"]) == set(got)
    assert [p for p in (tmp_path / "shared").rglob(".*")] == []
    assert not list((tmp_path / "shared" / "state").glob("*.pt"))


def test_a_gpu_works_on_as_many_fits_as_its_memory_and_the_cores_allow():
    published = 3 * 32 * 512 * 512
    assert fits_at_once(published, 140 * 2**30, 16) == 8
    assert fits_at_once(published, 8 * 2**30, 16) == 2
    assert fits_at_once(published, 140 * 2**30, 4) == 2
    assert fits_at_once(published, 2**30, 1) == 1
