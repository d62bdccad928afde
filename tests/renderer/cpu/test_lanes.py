"""Vectors in compiled kernels against NumPy."""

import numpy as np
import pytest

pytest.importorskip("numba")

from renderer.cpu.kernels.jit import kernel
from renderer.cpu.kernels.lanes import copy, load4, load8, spread4, spread8, store4, store8


@kernel
def _combine4(a, b, factor, out):
    store4(out, 1, spread4(factor) * load4(a, 3) + load4(b, 0) - load4(a, 0))


@kernel
def _combine8(a, b, factor, out):
    store8(out, 1, spread8(factor) * load8(a, 3) + load8(b, 0) - load8(a, 0))


@kernel
def _copy(source, i, target, j, count):
    copy(source, i, target, j, count)


@pytest.mark.parametrize(("count", "combine"), [(4, _combine4), (8, _combine8)])
def test_arithmetic_at_unaligned_places(count, combine):
    a, b = np.random.default_rng(0).normal(size=(2, 16)).astype(np.float32)
    out = np.full(16, 7, np.float32)
    combine(a, b, np.float32(2.5), out)
    expected = np.full(16, 7, np.float32)
    expected[1 : 1 + count] = 2.5 * a[3 : 3 + count] + b[:count] - a[:count]
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 8, 12, 21])
def test_copies_just_what_was_asked(count):
    source, target = np.arange(32, dtype=np.float32), np.full(32, -1, np.float32)
    _copy(source, 5, target, 2, count)
    expected = np.full(32, -1, np.float32)
    expected[2 : 2 + count] = source[5 : 5 + count]
    np.testing.assert_array_equal(target, expected)
