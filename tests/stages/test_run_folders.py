"""Runs that others hold, or that have lost their state, are left as they are."""

import shutil
import signal
import subprocess
import sys

import pytest

from tests.runtime.test_ownership import HOLDER


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path: path.read_bytes()
        for path in files
        if path.name not in ("lock", "log.txt", "config.yaml")
    }


def refusal(chain, stage, folder, capsys) -> str:
    """The sentence that a stage refuses to go on with; it has changed nothing."""
    before = contents(folder)
    capsys.readouterr()
    assert chain.run(stage, folder) == 2
    assert contents(folder) == before
    sentences = [s for s in capsys.readouterr().err.splitlines() if s.startswith("error: ")]
    assert len(sentences) == 1
    return sentences[0]


@pytest.mark.parametrize("stage", ["train-vae", "fit-decoder", "train-base"])
def test_a_second_training_is_told_who_is_at_work(chain, stage, tmp_path, project, capsys):
    folder = shutil.copytree(chain.out / stage, tmp_path / "run")
    command = [sys.executable, "-c", HOLDER, str(folder)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=project)
    try:
        assert first.stdout.readline() == "held\n"
        sentence = refusal(chain, stage, folder, capsys)
        assert f"process {first.pid} on" in sentence and "wait for it" in sentence
        assert "delete" not in sentence
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert chain.run(stage, folder) == 0


@pytest.mark.parametrize("stage", ["fit-decoder", "train-base"])
def test_a_run_without_its_state_does_not_begin_anew(chain, stage, tmp_path, capsys):
    folder = shutil.copytree(chain.out / stage, tmp_path / "run")
    for state in (folder / "state").iterdir():
        if state.name == "latest.pt":
            state.unlink()
        elif state.name.startswith("step_"):
            shutil.rmtree(state)
    assert "none is left" in refusal(chain, stage, folder, capsys)
