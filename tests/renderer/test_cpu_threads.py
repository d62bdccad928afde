"""The CPU kernels' workers: one core each, errors told, shares that cover everything."""

from itertools import pairwise

import numpy as np
import pytest
import torch

threads = pytest.importorskip("renderer.cpu.threads", reason="the CPU kernels need numba")


def test_workers_multiply_on_one_core_each_and_leave_the_caller_its_own():
    before = torch.get_num_threads()
    seen = {}
    try:
        torch.set_num_threads(3)

        def work(index: int) -> None:
            torch.mm(torch.ones(64, 64), torch.ones(64, 64))
            seen[index] = (torch.get_num_threads(), threads.worker_count())

        threads.run_workers(work, 3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == {0: (1, 1), 1: (1, 1), 2: (1, 1)}


def test_a_workers_error_reaches_the_caller():
    def work(index: int) -> None:
        if index == 1:
            raise ValueError("the second one failed")

    with pytest.raises(ValueError, match="second"):
        threads.run_workers(work, 2)


def test_shares_adjoin_and_weigh_about_the_same():
    offsets = np.cumsum([0, *([5] * 40), 100, *([1] * 60)])
    parts = threads.ray_shares(offsets, 3)
    assert parts[0][0] == 0 and parts[-1][1] == 101
    assert all(a[1] == b[0] for a, b in pairwise(parts))
    weights = [offsets[last] - offsets[first] for first, last in parts]
    assert sum(weights) == offsets[-1] and max(weights) <= offsets[-1] / 3 + 100
