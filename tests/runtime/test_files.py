"""Atomic files: whole or absent, and clear errors on reading."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from runtime.errors import UserError
from runtime.files import atomic_path, file_hash, read_json, remove_stale, write_json, write_text
from runtime.formats.tensor_files import load_state, load_tensors, save_tensors


def test_failure_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_unfinished_file_is_not_listed(tmp_path):
    with atomic_path(tmp_path / "x.safetensors") as temporary:
        temporary.write_bytes(b"1")
        assert list(tmp_path.glob("*.safetensors")) == []
        assert temporary.suffix == ".safetensors"
    assert [p.name for p in tmp_path.glob("*.safetensors")] == ["x.safetensors"]


def test_kill_while_writing_leaves_no_file_and_is_cleaned(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from runtime.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as t:\n"
        "    t.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.txt")])
    assert done.returncode == -9
    assert not (tmp_path / "a.txt").exists()
    assert len(os.listdir(tmp_path)) == 1
    remove_stale(tmp_path)
    assert os.listdir(tmp_path) == []


def test_remove_stale_spares_living_processes(tmp_path):
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("alive")
        remove_stale(tmp_path)
    assert (tmp_path / "a.txt").read_text() == "alive"


def test_json(tmp_path):
    write_json(tmp_path / "a.json", {"é": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"é": [1, 2.5, None]}
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", float("nan"))
    assert json.loads((tmp_path / "a.json").read_text()) == {"é": [1, 2.5, None]}
    (tmp_path / "b.json").write_text('{"a": ')
    for name in ("b.json", "missing.json"):
        with pytest.raises(UserError, match=name):
            read_json(tmp_path / name)


def test_tensors(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"x": torch.arange(6.0).reshape(2, 3).T, "y": torch.ones(2, dtype=torch.float16)}
    save_tensors(path, tensors, {"k": "v"})
    loaded, metadata = load_tensors(path)
    assert metadata == {"k": "v"}
    assert torch.equal(loaded["x"], tensors["x"]) and loaded["y"].dtype == torch.float16
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match="a.safetensors"):
        load_tensors(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="a.safetensors"):
        load_tensors(path)


def test_the_same_tensors_have_the_same_bytes(tmp_path):
    metadata = {f"key {i}": f"Wert „{i}“\n" for i in range(8)}
    tensors = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}
    found = set()
    for index in range(6):
        path = tmp_path / f"{index}.safetensors"
        save_tensors(path, tensors, metadata)
        found.add(path.read_bytes())
    assert len(found) == 1
    loaded, strings = load_tensors(path)
    assert strings == metadata and torch.equal(loaded["b"], tensors["b"])


def test_every_tensor_has_its_own_kinds_of_numbers(tmp_path):
    path = tmp_path / "a.safetensors"
    shapes, kinds = {"x": (2,), "there": (2,)}, {"there": ("BOOL",)}
    save_tensors(path, {"x": torch.ones(2), "there": torch.ones(2) > 0})
    load_tensors(path, shapes, kinds=kinds)
    save_tensors(path, {"x": torch.ones(2) > 0, "there": torch.ones(2) > 0})
    with pytest.raises(UserError, match="holds x as BOOL numbers"):
        load_tensors(path, shapes, kinds=kinds)


@pytest.mark.parametrize("damage", ["cut", "other", "empty", "code", "gone"])
def test_damaged_states_are_refused_in_one_sentence(tmp_path, damage):
    file = tmp_path / "state.pt"
    torch.save({"step": 3, "planes": torch.ones(1000)}, file)
    assert load_state(file, "start again")["step"] == 3
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    elif damage == "code":
        torch.save({"step": Path}, file)
    elif damage == "gone":
        file.unlink()
    else:
        file.write_bytes(b"" if damage == "empty" else b"no state at all")
    with pytest.raises(UserError, match=r"state\.pt (is damaged .*; start again|does not exist)"):
        load_state(file, "start again")


def test_file_hash(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    # The digest of "abc" as FIPS 180-2 gives it.
    assert file_hash(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")
