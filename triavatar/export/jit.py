"""Compilation of the export's kernels, and where the compiled code is kept."""

from __future__ import annotations

from pathlib import Path

import numba

from renderer.cpu.kernels.jit import cache_folder

_FOLDER = str(cache_folder(Path(__file__).parent, b"@jit"))


def jit(function):
    """Compile at first call, keep the machine code on disk; releases the interpreter lock."""
    before = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    numba.config.CACHE_DIR = _FOLDER  # type: ignore[attr-defined]
    try:
        return numba.njit(nogil=True, cache=True, forceinline=True, error_model="numpy")(function)
    finally:
        numba.config.CACHE_DIR = before  # type: ignore[attr-defined]
