"""A damaged cache of compiled code is made anew."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SUM = """
import sys
import tempfile
import renderer.cpu.kernels
import numba
numba.config.CACHE_DIR = sys.argv[1]
exec(compile(open(sys.argv[2]).read(), sys.argv[2], "exec"))
print(double(3.0), sum(double.stats.cache_hits.values()))
"""
KERNEL = """
@numba.njit(cache=True)
def double(x):
    return 2 * x
"""


@pytest.mark.parametrize(
    "kind, damage", [("nbi", b""), ("nbi", b"no pickle at all"), ("nbc", b"cut")]
)
def test_damaged_caches_are_made_anew(tmp_path, project, damage, kind):
    (tmp_path / "kernel.py").write_text(KERNEL)
    command = [sys.executable, "-c", SUM, str(tmp_path / "cache"), str(tmp_path / "kernel.py")]

    def run() -> str:
        done = subprocess.run(command, capture_output=True, text=True, cwd=project)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    assert run() == "6.0 0\n" and run() == "6.0 1\n"
    for file in Path(tmp_path / "cache").rglob(f"*.{kind}"):
        file.write_bytes(file.read_bytes()[:-20] if damage == b"cut" else damage)
    assert run() == "6.0 0\n"
    assert run() == "6.0 1\n"


def test_caches_of_others_are_not_used(tmp_path, monkeypatch):
    """Compiled code is code: who owns its folder could make others run anything."""
    from renderer.cpu.kernels.jit import cache_folder

    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = cache_folder()
    assert own.is_relative_to(tmp_path / "home") and own == cache_folder()
    # To another user, the same folders are a stranger's.
    monkeypatch.setattr(os, "getuid", lambda: own.stat().st_uid + 1)
    private = cache_folder()
    assert not private.is_relative_to(tmp_path / "home") and private != cache_folder()
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
