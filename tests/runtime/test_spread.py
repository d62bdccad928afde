"""Work over subjects: every one is done once, whoever dies, fails or works beside us."""

import multiprocessing
import os
import subprocess
import sys
import time

import pytest

from runtime.config import check_settings
from runtime.errors import PartialFailure, UserError
from runtime.files import read_json
from runtime.spread import SpreadSettings, spread
from runtime.spread.job import DEATHS
from runtime.spread.settings import parse_shard
from runtime.spread.turns import Turn
from tests.conftest import PROJECT
from tests.toy_work import ToyConfig, outcome, toy_job

NAMES = [f"s{k}" for k in range(6)]
EVERY = {name: f"{name}\n" for name in NAMES}
FORK = multiprocessing.get_context("fork")
ONE = SpreadSettings()
TWO = SpreadSettings(subjects_at_once=2)


def calls(folder, name) -> list[list[str]]:
    return [line.split() for line in (folder / "calls" / name).read_text().splitlines()]


@pytest.mark.parametrize("settings", [ONE, TWO], ids=["here", "two processes"])
def test_all_are_done_once_and_failures_listed(tmp_path, settings):
    config = ToyConfig(tmp_path, damaged=("s1",), faulty=("s4",))
    seen = []
    report = spread(toy_job(config), NAMES, settings, lambda name, done: seen.append((name, done)))
    assert outcome(tmp_path).keys() == {"s0", "s2", "s3", "s5"}
    assert sorted(name for name, _ in seen) == ["s0", "s2", "s3", "s5"]
    assert [done for _, done in seen] == [1, 2, 3, 4]
    assert report.failures == {
        "s1": "the picture of s1 is damaged",
        "s4": "ZeroDivisionError: a fault of the program",
    }
    assert "traceback" in read_json(tmp_path / "failures" / "s4.json")
    with pytest.raises(PartialFailure, match="2 of 6 subjects failed.*\n  s1: the picture"):
        report.raise_failures()
    here = settings.subjects_at_once == 1
    assert (calls(tmp_path, "s0")[0][0] == str(os.getpid())) == here
    # The same command again, with the cause gone, does what is left and nothing else.
    spread(toy_job(ToyConfig(tmp_path)), NAMES, settings).raise_failures()
    assert outcome(tmp_path) == EVERY
    assert [len(calls(tmp_path, name)) for name in NAMES] == [1, 2, 1, 1, 2, 1]
    assert not (tmp_path / "turns").exists() and not list((tmp_path / "failures").iterdir())


def test_a_subject_that_kills_its_processes_is_given_up(tmp_path):
    report = spread(toy_job(ToyConfig(tmp_path, deadly=("s2",))), NAMES, TWO)
    assert report.failures.keys() == {"s2"}
    assert f"{DEATHS} processes in a row died on s2" in report.failures["s2"]
    assert outcome(tmp_path).keys() == EVERY.keys() - {"s2"}
    assert len(calls(tmp_path, "s2")) == DEATHS
    # Nobody else's work was lost with them.
    assert all(len(calls(tmp_path, name)) == 1 for name in NAMES if name != "s2")


@pytest.mark.slow
def test_a_subject_that_gets_further_each_time_is_not_given_up(tmp_path):
    report = spread(toy_job(ToyConfig(tmp_path, deadly=("s2",), saves=True)), NAMES[:3], TWO)
    assert report.failures == {} and len(calls(tmp_path, "s2")) == 7 > DEATHS


def with_a_deadly_subject(folder) -> dict[str, str]:
    return spread(toy_job(ToyConfig(folder, deadly=("s0",))), ["s0", "s1"], ONE).failures


def test_deaths_are_remembered_by_the_next_command(tmp_path):
    """In this process a deadly subject ends the command; in the end it is named all the same."""
    for _ in range(DEATHS):
        command = FORK.Process(target=with_a_deadly_subject, args=(tmp_path,))
        command.start()
        command.join()
        assert command.exitcode == -9
    assert "5 processes in a row died on s0" in with_a_deadly_subject(tmp_path)["s0"]
    assert outcome(tmp_path).keys() == {"s1"}


def test_a_batch_that_fails_is_tried_one_by_one(tmp_path):
    config = ToyConfig(tmp_path, damaged=("s4",))
    report = spread(toy_job(config, batch=3), NAMES, ONE)
    assert report.failures.keys() == {"s4"} and len(outcome(tmp_path)) == 5
    assert [int(calls(tmp_path, name)[-1][1]) for name in NAMES] == [
        3,
        3,
        3,
        3,
        1,
        1,
    ]  # s3 was done before s4 failed


def test_a_cause_that_all_share_stops_the_run(tmp_path):
    names = [f"s{k}" for k in range(30)]
    with pytest.raises(UserError, match="first 10 subjects all failed: the picture of s9"):
        spread(toy_job(ToyConfig(tmp_path, damaged=tuple(names))), names, ONE)


def beside(folder) -> None:
    spread(toy_job(ToyConfig(folder, seconds=0.2)), NAMES, ONE)


def test_commands_side_by_side_share_the_subjects(tmp_path):
    """The same command twice: neither does what the other does, both end when all is done."""
    others = [FORK.Process(target=beside, args=(tmp_path,)) for _ in range(2)]
    for other in others:
        other.start()
    beside(tmp_path)
    assert outcome(tmp_path) == EVERY
    for other in others:
        other.join()
        assert other.exitcode == 0
    assert all(len(calls(tmp_path, name)) == 1 for name in NAMES)
    assert len({calls(tmp_path, name)[0][0] for name in NAMES}) > 1


def test_a_turn_has_one_holder_and_ends_with_it(tmp_path):
    first, second = Turn(tmp_path, "a"), Turn(tmp_path, "a")
    assert first.take() and not second.take()
    first.give_back()
    assert second.take() and second.deaths == 0
    second.give_back()
    code = (
        "from runtime.spread.turns import Turn; import pathlib, sys, time\n"
        "turn = Turn(pathlib.Path(sys.argv[1]), 'a'); print(turn.take(), flush=True)\n"
        "time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT)
    assert holder.stdout is not None and holder.stdout.readline() == "True\n"
    assert not first.take()
    holder.kill()
    holder.wait()
    assert first.take() and first.deaths == 1
    first.give_back()
    assert os.listdir(tmp_path) == []


def test_processes_end_with_their_parent(tmp_path):
    """A command that is killed leaves no process behind that still works."""
    code = (
        "from tests.toy_work import *; from runtime.spread import *; import pathlib, sys\n"
        "config = ToyConfig(pathlib.Path(sys.argv[1]), seconds=60)\n"
        "spread(toy_job(config), ['s0', 's1'], SpreadSettings(subjects_at_once=2))\n"
    )
    command = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=PROJECT)
    while not all((tmp_path / "calls" / name).exists() for name in ("s0", "s1")):
        assert command.poll() is None
        time.sleep(0.05)
    command.kill()
    command.wait()
    workers = [int(calls(tmp_path, name)[0][0]) for name in ("s0", "s1")]
    until = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in workers):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_threads_are_shared(tmp_path):
    spread(toy_job(ToyConfig(tmp_path)), NAMES[:2], SpreadSettings(subjects_at_once=2, threads=3))
    assert calls(tmp_path, "s0")[0][2] == "3"


def test_shard_is_a_slice(tmp_path):
    spread(toy_job(ToyConfig(tmp_path)), NAMES, SpreadSettings(shard="1/4"))
    assert outcome(tmp_path).keys() == {"s1", "s5"}
    assert parse_shard("2/5") == (2, 5)
    for bad in ("2", "3/3", "-1/2", "a/b", "0/0"):
        with pytest.raises(UserError, match="is not of the form i/n"):
            parse_shard(bad)
    with pytest.raises(UserError, match="SLURM_ARRAY_TASK_ID"):
        parse_shard("auto")


def test_settings_that_cannot_be_meant():
    for changes, words in (
        ({"subjects_at_once": 0}, "subjects_at_once is 0"),
        ({"engine_address": "auto"}, "add --engine ray"),
    ):
        with pytest.raises(UserError, match=words):
            check_settings(SpreadSettings(**changes))
