"""The CPU kernels' threads: plain ones, each with its own share of the work.

Every worker runs compiled kernels and small matrix products on one core, without barriers
between them; the products fit its cache. How work is shared depends on the number of workers
alone, so results repeat.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}
_inside = threading.local()


def worker_count() -> int:
    """As many as PyTorch's own threads (``torch.set_num_threads``, ``OMP_NUM_THREADS``)."""
    return 1 if getattr(_inside, "worker", False) else torch.get_num_threads()


def _pool(count: int) -> ThreadPoolExecutor:
    with _lock:
        if count not in _pools:
            before = torch.get_num_threads()
            ready = threading.Barrier(count + 1)

            def prepare() -> None:
                # A thread's own setting: its matrix products use one core. Asked first, as a
                # thread takes over the process's setting when PyTorch first looks at it.
                torch.get_num_threads()
                torch.set_num_threads(1)
                _inside.worker = True
                ready.wait()

            pool = ThreadPoolExecutor(count, "triavatar-cpu", initializer=prepare)
            for _ in range(count):
                pool.submit(lambda: None)
            ready.wait()
            torch.set_num_threads(before)
            _pools[count] = pool
        return _pools[count]


def run_workers(work: Callable[[int], None], count: int) -> None:
    """Call ``work(0) … work(count - 1)``, each on its own core, without gradients.

    Raises whatever a worker raised, once all have ended.
    """

    def guarded(index: int) -> None:
        with torch.no_grad():
            work(index)

    if count == 1:
        guarded(0)
        return
    futures = [_pool(count).submit(guarded, index) for index in range(count)]
    errors = [future.exception() for future in futures]
    for error in errors:
        if error is not None:
            raise error


def _forget() -> None:
    """After a fork: the threads stayed in the parent."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()
    _inside.worker = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def shares(total: int, count: int) -> list[tuple[int, int]]:
    """``count`` even, adjoining ranges of ``total`` things."""
    return [(total * k // count, total * (k + 1) // count) for k in range(count)]


def interleaved_rays(rays: int, workers: int, block: int = 64) -> list[np.ndarray]:
    """Each worker's rays: blocks in turn, since neighbouring rays cost about the same."""
    everything = np.arange(rays)
    turn = everything // block % workers
    return [everything[turn == k] for k in range(workers)]
