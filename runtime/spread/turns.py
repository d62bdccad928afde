"""One process at a time on a subject, and how many processes died on it.

A turn is a lock of the operating system on a file: it ends with its process, however that ends,
and works between machines on file systems that have such locks (NFS, Lustre with flock). Beside it
lies how often the turn was taken without having been given back: the processes that died.
"""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock, Timeout


class Turn:
    """The right to work on one subject.

    Args:
        folder: where turns lie; made when missing.
        name: the subject.

    Attributes:
        deaths: processes in a row that died on the subject without having saved anything.
    """

    def __init__(self, folder: Path, name: str):
        self.name, self.deaths = name, 0
        self._file = folder / f"{name}.lock"
        self._tries = folder / f"{name}.tries"
        self._lock = FileLock(self._file, timeout=0)

    def take(self) -> bool:
        """Return whether the turn is ours; not while another process has it."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            return False
        try:
            self.deaths = int(self._tries.read_text())
        except (FileNotFoundError, ValueError):
            self.deaths = 0
        self._tries.write_text(str(self.deaths + 1))
        return True

    def saved(self) -> None:
        """The work has got further: should the process die now, it was not for nothing."""
        self._tries.write_text("1")

    def give_back(self) -> None:
        """End it, whatever came of the work."""
        self._tries.unlink(missing_ok=True)
        # While it is held: a process that has opened the file meanwhile finds it gone, not free.
        self._file.unlink(missing_ok=True)
        self._lock.release()


def remove_turns(folder: Path) -> None:
    """Remove the folder of turns unless some process has one."""
    try:
        os.rmdir(folder)
    except OSError:
        return


def any_taken(folder: Path, names: list[str]) -> bool:
    """Return whether the turn of any of these was taken by a process that is at work or died so."""
    return any((folder / f"{name}.tries").exists() for name in names)
