"""Run folders: what they write, and when they resume."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from runtime.errors import UserError
from runtime.files import drop_half_line
from runtime.runs import RunFolder


@dataclass
class Config:
    width: int = 4
    """Channels."""
    steps: int = field(default=3, metadata={"resumable": True})
    """Optimiser steps."""


def test_layout_and_contents(tmp_path):
    run = RunFolder(tmp_path / "r", Config(), "stage")
    run.log("hello")
    run.scalars(1, {"loss": 0.5})
    run.save_image("sample", np.zeros((4, 5, 3), np.uint8))
    assert {p.name for p in run.path.iterdir()} == {
        *("config.yaml", "log.txt", "stats.jsonl", "state", "snapshots", "images"),
        "lock",
    }
    assert json.loads((run.path / "stats.jsonl").read_text()) == {"step": 1, "loss": 0.5}
    assert "hello" in (run.path / "log.txt").read_text()
    assert Image.open(run.images / "sample.png").size == (5, 4)


def test_resumes_with_the_same_settings_only(tmp_path):
    assert not RunFolder(tmp_path, Config(), "study stage").resumed
    assert RunFolder(tmp_path, Config(steps=10), "study stage").resumed
    with pytest.raises(UserError, match="width=4.*width=5"):
        RunFolder(tmp_path, Config(width=5), "study stage")
    with pytest.raises(UserError, match="a run of study stage, not of other"):
        RunFolder(tmp_path, Config(), "other")


def test_state_is_whole_or_refused(tmp_path):
    run = RunFolder(tmp_path, Config(), "stage")
    assert run.load_state() is None
    run.save_state(7, {"weights": torch.arange(3.0), "names": ["a"]})
    state = run.load_state()
    assert state is not None and state["step"] == 7 and state["names"] == ["a"]
    file = tmp_path / "state" / "latest.pt"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match="latest.pt"):
        run.load_state()


def test_rewind_drops_later_rows_and_half_lines(tmp_path):
    run = RunFolder(tmp_path, Config(), "stage")
    for step in (1, 2, 3):
        run.scalars(step, {"loss": step})
    with open(tmp_path / "stats.jsonl", "a") as handle:
        handle.write('{"step": 4, "lo')
    run = RunFolder(tmp_path, Config(), "stage")
    run.rewind(2)
    run.scalars(3, {"loss": 30})
    assert [row["loss"] for row in run.read_scalars()] == [1, 2, 30]


def test_only_the_end_of_a_log_is_read(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("one\ntwo\nhalf")
    drop_half_line(log)
    drop_half_line(log)
    assert log.read_text() == "one\ntwo\n"
    with open(log, "r+b") as file:
        file.truncate(2**40)  # takes no room on disk
    with pytest.raises(UserError, match=r"log.txt is damaged"):
        drop_half_line(log)


def test_state_folders_are_committed_whole(tmp_path):
    run = RunFolder(tmp_path, Config(), "stage")
    assert run.latest_state_dir() is None
    for step in (5, 10):
        folder = run.new_state_dir(step)
        (folder / "a").write_text(str(step))
        run.commit_state_dir(folder, step)
    (run.new_state_dir(15) / "a").write_text("half")
    run = RunFolder(tmp_path, Config(), "stage")
    latest = run.latest_state_dir()
    assert latest is not None and latest[0] == 10
    assert {p.name for p in run.state.iterdir()} == {"step_00000010", "saved"}


def test_other_processes_write_nothing(tmp_path):
    run = RunFolder(tmp_path / "r", Config(), "stage", is_main=False)
    run.log("x")
    run.scalars(1, {"a": 1})
    run.save_state(1, {})
    run.save_image("x", np.zeros((2, 2, 3), np.uint8))
    assert not Path(tmp_path / "r").exists()


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(UserError, match="is a file"):
        RunFolder(tmp_path / "f", Config(), "stage")


def test_a_run_is_held_to_its_inputs(tmp_path):
    first = RunFolder(tmp_path / "r", Config(), "stage")
    first.depends_on({"decoder_hash": "a", "scaling_factor": 0.5})
    again = RunFolder(tmp_path / "r", Config(), "stage")
    again.depends_on({"decoder_hash": "a", "scaling_factor": 0.5})
    with pytest.raises(UserError, match="begun with another decoder_hash"):
        again.depends_on({"decoder_hash": "b", "scaling_factor": 0.5})


@pytest.mark.parametrize("line", ["", "[]", '{"step": "x"}', '{"step": 1, "loss": NaN}', "{"])
def test_damaged_rows_are_named(tmp_path, line):
    run = RunFolder(tmp_path / "r", Config(), "stage")
    run.scalars(1, {"loss": 0.5})
    with open(run.path / "stats.jsonl", "a") as rows:
        rows.write(line + "\n")
    with pytest.raises(UserError, match="stats.jsonl, line 2"):
        run.rewind(1)


def test_a_lost_state_is_no_new_beginning(tmp_path):
    """What is left of the run would be replaced by that of a run from the first step."""
    run = RunFolder(tmp_path, Config(), "stage")
    run.scalars(1, {"loss": 3.0})
    assert run.load_state() is None and run.latest_state_dir() is None  # died before saving
    run.save_state(2, {})
    run.state_file.unlink()
    run = RunFolder(tmp_path, Config(), "stage")
    for load in (run.load_state, run.latest_state_dir):
        with pytest.raises(UserError, match="none is left in .*state; put it back, .* delete"):
            load()
    shutil.rmtree(run.state)  # as the sentence says
    assert RunFolder(tmp_path, Config(), "stage").load_state() is None
