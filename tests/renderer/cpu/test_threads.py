"""The CPU kernels' workers: one core each, errors told, shares that cover everything."""

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


def test_every_ray_belongs_to_one_worker_and_shares_are_even():
    mine = threads.interleaved_rays(1000, 3, block=16)
    assert sorted(np.concatenate(mine)) == list(range(1000))
    assert max(len(m) for m in mine) - min(len(m) for m in mine) <= 16
    assert np.array_equal(mine[1][:16], np.arange(16, 32))
