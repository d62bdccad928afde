"""Stage 2 shared by processes: killed ones are followed, failures are listed, nothing is lost."""

import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fitting.fit_jobs import DEATHS
from fitting.fit_triplanes import FitTriplanesConfig, fit_triplanes
from fitting.subject_fit import FitSettings
from renderer.fitted_set import FittedSet
from runtime.claims import Claim, Claims
from runtime.errors import PartialFailure, UserError
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
    with pytest.raises(PartialFailure, match="1 of 6 .*\n.*subject_000: .*img_proc_fg_000001.png"):
        fit_triplanes(config)
    fitted = FittedSet.open(config.output_dir)
    assert fitted.names == [f"subject_{k:03d}" for k in range(1, 6)]
    quality = read_json(config.output_dir / "quality.json")
    assert set(quality["subjects"]) == set(fitted.names)
    (subject / "img_proc_fg_000001.png").write_bytes(content)
    fit_triplanes(config)
    assert len(fitted.names) == 6
    assert not list((config.output_dir / "failures").iterdir())
    assert not (config.output_dir / "state" / "claims").exists()


def test_a_cause_that_all_share_stops_the_run(config, monkeypatch):
    monkeypatch.setattr("fitting.fit_jobs.HOPELESS", 3)
    for subject in sorted(config.root.glob("subject_*"))[:4]:
        damage(subject)
    with pytest.raises(UserError, match="first 3 subjects all failed"):
        fit_triplanes(config)


def test_a_subject_that_kills_its_processes_is_given_up(config):
    claims = Claims(config.output_dir / "state" / "claims")
    claims.take("subject_002")
    file = claims.file("subject_002", 0)
    # As if the last of several processes had died on it.
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], text=True,
                          capture_output=True, check=True)  # fmt: skip
    changed = {"pid": int(gone.stdout), "deaths": DEATHS - 1}
    file.write_text(json.dumps(read_json(file) | changed))
    with pytest.raises(PartialFailure, match="1 of 6 .*\n.*subject_002: 5 processes in a row died"):
        fit_triplanes(config)
    assert len(FittedSet.open(config.output_dir).names) == 5


def test_a_lost_claim_writes_nothing(config, monkeypatch):
    """A process that slept finds its subject taken over, and leaves it to the other."""
    lost = {"subject_001"}
    original = Claim.held

    def held(self):
        return False if self.key in lost else original(self)

    def put(self, name, planes):
        assert name not in lost
        written.append(name)

    written: list[str] = []
    monkeypatch.setattr(Claim, "held", held)
    monkeypatch.setattr(FittedSet, "put", put)
    monkeypatch.setattr("fitting.fit_triplanes._Stage2._check", lambda *_: {})
    monkeypatch.setattr("fitting.fit_jobs.SubjectJobs.done", lambda self: set(written) | seen)
    seen: set[str] = set()

    def log(self, text):
        seen.update(name for name in lost if name in text)

    monkeypatch.setattr("runtime.runs.RunFolder.log", log)
    monkeypatch.setattr("fitting.fit_triplanes._Stage2.finish", lambda self: None)
    fit_triplanes(config)
    assert seen == lost and set(written) == {f"subject_{k:03d}" for k in range(6)} - lost


def test_the_record_of_a_subject(config):
    fit_triplanes(config)
    record = read_json(config.output_dir / "quality" / "subject_003.json")
    assert record["steps"] == 4 and 0 < record["ssim"] < 1 and record["psnr"] > 0
    assert set(record["seconds"]) == {"load", "fit", "save", "check"}
    assert len(record["loss"]) == 4
    assert (config.output_dir / "images" / "subject_003.png").exists()


# A process that has imported everything and forks the workers, which spares each its start. Each
# counts the records it finishes in a file of its own.
FOSTER = """
import os, pickle, random, signal, sys, time
import torch
torch.set_num_threads(1)
from fitting.fit_triplanes import fit_triplanes
from runtime.errors import PartialFailure
config = pickle.load(open(sys.argv[1], "rb"))
log, seed, kills = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
os.environ["WORLD_SIZE"] = "8"
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
        os.environ["RANK"] = str(rank)
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
    leftovers = [p for p in (tmp_path / "shared").rglob(".*") if p.parent.name != "claims"]
    assert leftovers == [] and not list((tmp_path / "shared" / "state").glob("*.pt"))


@pytest.mark.slow
def test_a_supervisor_replaces_a_killed_process(config, tmp_path):
    """--subjects_at_once 2 from the command line, with one of its processes killed."""
    arguments = [sys.executable, "-m", "triavatar", "fit-triplanes", "--root", str(config.root)]
    arguments += ["--decoder", str(config.decoder), "--output_dir", str(config.output_dir)]
    arguments += ["--init", "random", "--iterations", "150", "--device", "cpu"]
    arguments += ["--subjects_at_once", "2", "--fit.rays", "64", "--fit.steps", "32"]
    arguments += ["--fit.grid", "8", "--save_every", "10", "--fit.smoothness_weight", "0"]
    process = subprocess.Popen(arguments, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    claims = config.output_dir / "state" / "claims"
    while not list(claims.glob("subject_*")):
        assert process.poll() is None, process.communicate()[1][-2000:]
        time.sleep(0.05)
    held = random.Random(0).choice(list(claims.glob("subject_*")))
    os.kill(read_json(held)["pid"], signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-2000:]
    assert "killed by signal 9" in (config.output_dir / "log.txt").read_text()
    assert len(FittedSet.open(config.output_dir).names) == 6
