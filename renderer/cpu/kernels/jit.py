"""Compilation of the CPU kernels, where its results are kept, and vector maths.

Kernels release the interpreter lock and use no threads of their own, see
:mod:`renderer.cpu.threads`.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from renderer.decoder import GRADIENT_EXPONENT, MAX_EXPONENT
from renderer.plane_step import StepConstants
from renderer.samples import MAX_OPTICAL_DEPTH

# Sums may be reordered and multiply-adds fused, so that loops vectorise; NaN and infinity keep
# their meaning.
_FAST = {"contract", "reassoc", "nsz", "arcp"}


def cache_folder(sources: Path = Path(__file__).parents[1], marker: bytes = b"@kernel") -> Path:
    """A writable folder for compiled kernels; a change of any source or constant changes its name.

    (numba itself looks only at the file of a function, not at what the function calls.)

    Args:
        sources: folder of the sources, with what lies below it.
        marker: what a file that counts contains.

    ``NUMBA_CACHE_DIR`` names the parent; otherwise the user's cache folder, or a private folder
    among the temporary files where home is read-only.
    """
    elsewhere = MAX_OPTICAL_DEPTH, MAX_EXPONENT, GRADIENT_EXPONENT, StepConstants._fields
    digest = hashlib.sha256(repr(elsewhere).encode())
    for source in sorted(sources.rglob("*.py")):
        content = source.read_bytes()
        if marker in content:
            digest.update(content)
    name = f"triavatar-{digest.hexdigest()[:12]}"
    named = os.environ.get("NUMBA_CACHE_DIR")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    temporary = Path(tempfile.gettempdir()) / f"triavatar-numba-{os.getuid()}"
    for parent in [Path(named)] if named else [Path(cache) / "triavatar" / "numba", temporary]:
        folder = parent / name
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        if os.access(folder, os.W_OK) and folder.stat().st_uid == os.getuid():
            return folder
    return Path(tempfile.mkdtemp(prefix="triavatar-numba-"))


_FOLDER = str(cache_folder())


def kernel(function: Callable | None = None, *, exact: bool = False) -> Any:
    """Compile at first call, keep the machine code on disk.

    Args:
        exact: round every operation as written, as PyTorch does.
    """

    def compile_lazily(f):
        before = numba.config.CACHE_DIR  # type: ignore[attr-defined]
        numba.config.CACHE_DIR = _FOLDER  # type: ignore[attr-defined]
        try:
            return numba.njit(
                nogil=True,
                cache=True,
                # Called kernels are part of their caller. Linked, the process that compiles would
                # run the callee's own machine code and later ones the copy in the cache: optimised
                # apart, they round differently.
                forceinline=True,
                error_model="numpy",
                fastmath=False if exact else _FAST,
            )(f)
        finally:
            numba.config.CACHE_DIR = before  # type: ignore[attr-defined]

    return compile_lazily if function is None else compile_lazily(function)


@intrinsic
def _float_from_bits(typingctx, bits):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@kernel
def _power_of_two(n):
    """2ⁿ for whole n in [−126, 127], fp32: (n + 127) · 2²³ is its bit pattern, and exact."""
    return _float_from_bits(np.int32((n + np.float32(127.0)) * np.float32(8388608.0)))


# Polynomials are paired up (Estrin's scheme): half as long a chain of operations that wait for
# one another as Horner's.


@kernel
def fast_exp(x):
    """exp(x), fp32, relative error below 2e-7; saturates at the ends of fp32's range."""
    x = min(max(x, np.float32(-87.0)), np.float32(88.0))
    n = np.rint(x * np.float32(1.44269504))
    r = (x - n * np.float32(0.693359375)) + n * np.float32(2.12194440e-4)
    r2 = r * r
    low = (np.float32(1.0) + r) + r2 * (
        np.float32(5.0000001201e-1) + np.float32(1.6666665459e-1) * r
    )
    high = (np.float32(4.1665795894e-2) + np.float32(8.3334519073e-3) * r) + r2 * (
        np.float32(1.3981999507e-3) + np.float32(1.9875691500e-4) * r
    )
    return (low + (r2 * r2) * high) * _power_of_two(n)


@kernel
def softplus(x):
    """log(1 + exp(x)), fp32, absolute error below 5e-7 for |x| < 10."""
    # u = exp(−|x|) = 2ⁿ · 2ᶠ; polynomials fitted to 2ᶠ on [−½, ½] and log1p(u) / u on [0, 1].
    t = max(abs(x) * np.float32(-1.44269504), np.float32(-126.0))
    n = np.rint(t)
    f = t - n
    f2 = f * f
    p = (np.float32(1.00000008) + np.float32(0.693147225) * f) + f2 * (
        (np.float32(0.240221074) + np.float32(0.0555029731) * f)
        + f2 * (np.float32(0.00967603636) + np.float32(0.00134100001) * f)
    )
    u = p * _power_of_two(n)
    u2 = u * u
    low = (np.float32(0.999999975) + np.float32(-0.499995526) * u) + u2 * (
        np.float32(0.333203430) + np.float32(-0.248529413) * u
    )
    high = (np.float32(0.191450986) + np.float32(-0.137465835) * u) + u2 * (
        np.float32(0.0792102775) + np.float32(-0.0301106773) * u
    )
    u4 = u2 * u2
    return max(x, np.float32(0.0)) + u * (low + u4 * (high + u4 * np.float32(0.00538398934)))


@kernel
def sin_cos(x):
    """sin(x) and cos(x), fp32, absolute error below 2e-7 for |x| < 10³."""
    n = np.rint(x * np.float32(0.636619772))
    r = (x - n * np.float32(1.5703125)) - n * np.float32(4.83826794e-4)
    q = r * r
    s = np.float32(-1.9515295891e-4)
    s = s * q + np.float32(8.3321608736e-3)
    s = s * q - np.float32(1.6666654611e-1)
    s = s * q * r + r
    c = np.float32(2.443315711809948e-5)
    c = c * q - np.float32(1.388731625493765e-3)
    c = c * q + np.float32(4.166664568298827e-2)
    c = c * q * q - np.float32(0.5) * q + np.float32(1.0)
    # The quadrant n mod 4, in floats: swap for odd, negate by half turns.
    quadrant = n - np.float32(4.0) * np.floor(n * np.float32(0.25))
    odd = (quadrant == np.float32(1.0)) or (quadrant == np.float32(3.0))
    sine = c if odd else s
    cosine = s if odd else c
    if quadrant >= np.float32(2.0):
        sine = -sine
    if quadrant == np.float32(1.0) or quadrant == np.float32(2.0):
        cosine = -cosine
    return sine, cosine
