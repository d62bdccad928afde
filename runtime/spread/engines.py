"""What subjects are given to: this process, several of this machine, or a cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Protocol

from runtime.errors import UserError
from runtime.spread.job import Collected, Job, Work, attempt, attempt_elsewhere
from runtime.spread.settings import SpreadSettings


class Engine(Protocol):
    """Takes names in batches and says later what became of them."""

    def room(self) -> int:
        """Return how many more batches it takes now."""
        ...

    def submit(self, names: list[str]) -> None:
        """Take a batch."""
        ...

    def collect(self, timeout: float) -> list[Collected]:
        """Return what has come back; waits for something at most ``timeout`` seconds."""
        ...

    def close(self) -> None:
        """End all processes, at work or not."""
        ...


def open_engine(
    job: Job,
    settings: SpreadSettings,
    show: Callable[[float], None],
    begun: Work | None = None,
) -> Engine:
    """Start the engine that the settings name; close it in the end.

    Args:
        job: the work it does.
        show: is told how much of a batch is done, 0 to 1, where this process does the work.
        begun: the job's work, if this process has begun it.

    Raises:
        UserError: it can't be reached.
    """
    if settings.here:
        return ThisProcess(job, settings.threads, show, begun)
    if settings.engine == "local":
        return LocalProcesses(job, settings.subjects_at_once, settings.threads)
    from runtime.spread.cluster import RayCluster

    return RayCluster(job, settings)


class ThisProcess:
    """Does the work itself, a batch at a time.

    Args:
        threads: of PyTorch; 0 leaves them as they are.
        show: is told how much of a batch is done, 0 to 1.
        begun: the job's work, if it is begun.
    """

    def __init__(
        self, job: Job, threads: int, show: Callable[[float], None], begun: Work | None = None
    ):
        import torch

        self.job, self.show = job, show
        self._before = torch.get_num_threads()
        if threads:
            torch.set_num_threads(threads)
        self._work = begun
        self._collected: list[Collected] = []

    def room(self) -> int:
        return 0 if self._collected else 1

    def submit(self, names: list[str]) -> None:
        if self._work is None:
            self._work = self.job.begin(self.job.config)
        self._collected.append((names, attempt(self.job, self._work, names, self.show)))

    def collect(self, timeout: float) -> list[Collected]:
        collected, self._collected = self._collected, []
        return collected

    def close(self) -> None:
        import torch

        torch.set_num_threads(self._before)


class LocalProcesses:
    """Processes of this machine, by loky; each has a pool of its own, so that one that is killed
    takes no other's work with it.

    Args:
        count: how many.
        threads: of PyTorch, in each; 0 shares those of this process.
    """

    def __init__(self, job: Job, count: int, threads: int):
        import torch

        self.job = job
        self.threads = threads or max(1, torch.get_num_threads() // count)
        self._devices = _visible_gpus() if job.uses_gpu else []
        self._pools = {slot: self._pool(slot) for slot in range(count)}
        self._free = list(range(count))
        self._running: dict[Future, tuple[int, list[str]]] = {}

    def _pool(self, slot: int):
        from loky import ProcessPoolExecutor

        env = {"OMP_NUM_THREADS": str(self.threads)}
        if len(self._devices) > 1:
            env["CUDA_VISIBLE_DEVICES"] = self._devices[slot % len(self._devices)]
            env["LOCAL_RANK"] = "0"  # of the one it sees
        return ProcessPoolExecutor(
            1, env=env, initializer=_end_with_parent, initargs=(os.getpid(),)
        )

    def room(self) -> int:
        return len(self._free)

    def submit(self, names: list[str]) -> None:
        slot = self._free.pop(0)
        future = self._pools[slot].submit(attempt_elsewhere, self.job, names, self.threads)
        self._running[future] = slot, names

    def collect(self, timeout: float) -> list[Collected]:
        from concurrent.futures.process import BrokenProcessPool

        done, _ = wait(self._running, timeout, FIRST_COMPLETED)
        collected: list[Collected] = []
        for future in done:
            slot, names = self._running.pop(future)
            try:
                outcomes = future.result()
            except BrokenProcessPool:
                self._pools[slot].shutdown(wait=False, kill_workers=True)
                self._pools[slot] = self._pool(slot)
                outcomes = None
            self._free.append(slot)
            if isinstance(outcomes, str):
                raise UserError(outcomes)
            collected.append((names, outcomes))
        return collected

    def close(self) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=True, kill_workers=True)


def _visible_gpus() -> list[str]:
    """Names, as CUDA_VISIBLE_DEVICES takes them, of the GPUs this process may use."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named:
        return named.split(",")
    return [str(index) for index in range(torch.cuda.device_count())]


def _end_with_parent(parent: int) -> None:
    """In a new process: Ctrl-C is the parent's to answer, and a killed parent ends it too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    with contextlib.suppress(RuntimeError):
        threading.Thread(target=watch, daemon=True).start()
