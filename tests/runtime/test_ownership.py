"""Folders have one writer, and only the work that began them goes on in them."""

import signal
import subprocess
import sys

import pytest

from runtime.errors import UserError
from runtime.ownership import LOCK, begin, lock_folder, one_writer, release_folders

HOLDER = """
import sys, time
from pathlib import Path
from runtime.ownership import lock_folder
lock_folder(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_dies(tmp_path, project):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=project)
    try:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"being written by process {first.pid} on"):
            lock_folder(tmp_path / "run")
        # Being refused doesn't free it.
        with pytest.raises(UserError, match=f"process {first.pid}"):
            lock_folder(tmp_path / "run")
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    with one_writer(tmp_path / "run"):
        lock_folder(tmp_path / "run")  # the process that holds it may open it again
    assert not (tmp_path / "run" / LOCK).exists()


def test_locks_end_with_the_command(tmp_path):
    lock_folder(tmp_path)
    assert (tmp_path / LOCK).exists()
    release_folders()
    assert not (tmp_path / LOCK).exists()


def test_work_goes_on_only_as_it_was_begun(tmp_path):
    folder = tmp_path / "set"
    begin(folder, "render", {"seed": 1, "maps": ("depth",)})
    begin(folder, "render", {"seed": 2})  # nothing was made yet
    (folder / "anna").mkdir()
    begin(folder, "render", {"seed": 2})
    with pytest.raises(UserError, match="begun with seed = 2, now it is 3"):
        begin(folder, "render", {"seed": 3})
    with pytest.raises(UserError, match="holds the work of render, not of import"):
        begin(folder, "import", {"seed": 2})


def test_what_a_killed_process_left_is_no_work(tmp_path):
    (tmp_path / ".partial-host-1-x").mkdir()
    begin(tmp_path, "import", {})
    assert (tmp_path / "made_by.json").exists()


def test_what_others_made_stays(tmp_path):
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(UserError, match=r"did not make \(dataset.json\)"):
        begin(tmp_path, "import", {})
    assert [p.name for p in tmp_path.iterdir()] == ["dataset.json"]
