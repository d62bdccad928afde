"""Several processes on one device, and the one that watches over them."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from fitting.fit_jobs import JobBar, SubjectJobs
from runtime.errors import PartialFailure, UserError, is_disk_full

LOOK_EVERY = 1.0
"""Seconds between looks at the processes."""
RESTARTS = 5
"""How often, for each process, a killed one is replaced."""


@dataclass(frozen=True)
class Share:
    """Which of the processes of a job this one is.

    Attributes:
        rank, count: of the processes the launcher started.
        processes: how many this one starts for itself; 1 means that it works itself.
        index: which of those; None in the process that the launcher started.
    """

    rank: int = 0
    count: int = 1
    processes: int = 1
    index: int | None = None

    @property
    def first(self) -> float:
        """Where in the list of work to begin, 0 to 1."""
        return (self.rank + (self.index or 0) / self.processes) / self.count

    @property
    def is_main(self) -> bool:
        """Whether it writes the run folder's configuration and log."""
        return self.rank == 0 and self.index is None

    @property
    def shows(self) -> bool:
        """Whether it draws the bar."""
        return self.is_main

    @property
    def reports(self) -> bool:
        """Whether it reports at the end and fails if something failed."""
        return self.index is None

    @property
    def threads(self) -> int | None:
        """Its share of the threads; None leaves them as they are."""
        if self.index is None:
            return None
        return max(1, torch.get_num_threads() // self.processes)


def supervise(work: Callable[[Any, Share], None], config: Any, share: Share, jobs: SubjectJobs):
    """Run ``share.processes`` processes of ``work(config, share)`` and replace killed ones.

    Args:
        work: a function of a module; it returns when nothing is left to do.
        jobs: for the bar of the whole job.

    Raises:
        UserError: a process stopped with an error, or too many were killed.
    """
    context = multiprocessing.get_context("spawn")

    def start(index: int):
        own = Share(share.rank, share.count, share.processes, index)
        process = context.Process(target=_run, args=(work, config, own, os.getpid()), daemon=True)
        process.start()
        return process

    running = {index: start(index) for index in range(share.processes)}
    restarts = RESTARTS * share.processes
    with JobBar(jobs, share.shows) as bar:
        while running:
            time.sleep(LOOK_EVERY)
            bar.count_if_due()
            for index, process in list(running.items()):
                if process.exitcode is None:
                    continue
                del running[index]
                if process.exitcode > 0:
                    _end(running.values())
                    raise UserError("a process stopped with the error above")
                if process.exitcode < 0:
                    jobs.folder.log(f"a process was killed by signal {-process.exitcode}")
                    restarts -= 1
                    if restarts < 0:
                        _end(running.values())
                        raise UserError(
                            "too many processes were killed; the machine may lack memory for "
                            f"{share.processes} subjects at once"
                        )
                    running[index] = start(index)
        bar.count()


def _end(processes) -> None:
    for process in processes:
        process.terminate()
        process.join()


def _run(work: Callable[[Any, Share], None], config: Any, share: Share, parent: int) -> None:
    """In the new process: work, and end with the parent."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        work(config, share)
    except (UserError, PartialFailure) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if is_disk_full(error):
            sys.exit("error: the disk is full; free some space and run the same command again.")
        raise


def _end_with(parent: int) -> None:
    """A killed parent can't end its processes; they notice that they have another one."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
