"""Sharing work between processes that come and go: claim files in a folder all of them see.

A process works on what it has claimed. A claim is a file ``<key>.<generation>``, made by linking
a finished file under that name, which one process alone can do (also on network file systems,
where locks are often not to be had). Whoever takes over from a dead process makes the next
generation; nobody deletes another's claim, so two can't take over at once. A living holder
touches its claims; one of this machine is dead when its process is gone, one of another machine
when its claim has not been touched for a while by the observer's own clock, so that machines'
clocks need not agree.

A process that only slept may wake up and find its claim taken: it asks :meth:`Claim.held` before
it writes. Should two do the same work all the same, no harm is done where results are written
atomically and don't depend on who makes them.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass
class Claim:
    """A piece of work that this process holds.

    Attributes:
        key: what is claimed.
        path: the claim's file.
        deaths: holders in a row that died on this key without any progress.
    """

    owner: Claims
    key: str
    path: Path
    generation: int
    deaths: int

    def held(self) -> bool:
        """Whether nobody has taken it over."""
        return self.path.exists() and self.owner.newest(self.key) == self.generation

    def release(self) -> None:
        """Give it up, done or not; its earlier generations go too."""
        self.owner.forget(self)
        if self.held():
            for generation in range(self.generation + 1):
                self.owner.file(self.key, generation).unlink(missing_ok=True)


class Claims:
    """Takes claims in a folder and keeps them alive from a thread of its own.

    Args:
        folder: made when missing; on a file system that all processes share.
        stale_after: seconds without a touch after which another machine's claim counts as dead.
            Network file systems show a touch up to a minute late: stay well above that.
    """

    def __init__(self, folder: Path, stale_after: float = 300.0):
        self.folder, self.stale_after = folder, stale_after
        folder.mkdir(parents=True, exist_ok=True)
        self._held: set[Path] = set()
        self._seen: dict[Path, tuple[int, float]] = {}
        self._lock = threading.Lock()
        self._beating = False

    def file(self, key: str, generation: int) -> Path:
        """The claim's file."""
        return self.folder / f"{key}.{generation}"

    def _generations(self) -> dict[str, int]:
        """Newest generation of every key that has one."""
        newest: dict[str, int] = {}
        for name in os.listdir(self.folder) if self.folder.is_dir() else ():
            key, _, generation = name.rpartition(".")
            if key and generation.isdigit():
                newest[key] = max(newest.get(key, 0), int(generation))
        return newest

    def newest(self, key: str) -> int | None:
        """Newest generation of a key's claim; None without one."""
        return self._generations().get(key)

    def take(self, key: str, progress: str = "", *, take_over: bool = True) -> Claim | None:
        """Claim a key; None while another living process holds it.

        Args:
            progress: a word that changes whenever the work has got further; holders that die
                without changing it are counted in :attr:`Claim.deaths`.
            take_over: also take what a dead process held.
        """
        newest = self.newest(key)
        generation, deaths = 0, 0
        if newest is not None:
            if not take_over or not self._dead(self.file(key, newest)):
                return None
            before = _read(self.file(key, newest))
            generation = newest + 1
            if before.get("progress") == progress:
                deaths = int(before.get("deaths", 0)) + 1
        path = self.file(key, generation)
        content = json.dumps(_own_process() | {"progress": progress, "deaths": deaths})
        if not self._make(path, content):
            return None
        with self._lock:
            self._held.add(path)
            if not self._beating:
                self._beating = True
                threading.Thread(target=self._beat, name="claims", daemon=True).start()
        return Claim(self, key, path, generation, deaths)

    def holders(self) -> int:
        """Claims of processes that seem alive."""
        newest = self._generations().items()
        return sum(not self._dead(self.file(key, generation)) for key, generation in newest)

    def forget(self, claim: Claim) -> None:
        """Stop keeping a claim alive."""
        with self._lock:
            self._held.discard(claim.path)

    def close(self) -> None:
        """All work is done: remove what dead processes left; the folder goes with the last."""
        if any(path in self._held or not self._dead(path) for path in self._paths()):
            return
        shutil.rmtree(self.folder, ignore_errors=True)

    def _paths(self) -> list[Path]:
        return [self.file(key, number) for key, number in self._generations().items()]

    def _make(self, path: Path, content: str) -> bool:
        """Make a file with its content under a name that must be free; whether it was."""
        try:
            handle, name = tempfile.mkstemp(prefix=".new-", dir=self.folder)
        except FileNotFoundError:
            # The process that found everything done has removed the folder.
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".new-", dir=self.folder)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
        try:
            os.link(name, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # No hard links here (some network shares): exclusive creation does, only that a
            # process killed before the content is there counts as one of another machine.
            try:
                with open(path, "x", encoding="utf-8") as file:
                    file.write(content)
            except FileExistsError:
                return False
        finally:
            os.unlink(name)
        return True

    def _dead(self, path: Path) -> bool:
        """Whether the holder of a claim is dead, as far as one can see."""
        holder = _read(path)
        if holder.get("machine") == _machine():
            return _started(int(holder["pid"])) != holder["started"]
        try:
            touched = path.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        now = time.monotonic()
        known, since = self._seen.get(path, (0, now))
        if known != touched:
            self._seen[path] = (touched, now)
            return False
        return now - since > self.stale_after

    def _beat(self) -> None:
        while True:
            time.sleep(self.stale_after / 10)
            with self._lock:
                held = list(self._held)
            for path in held:
                try:
                    os.utime(path)
                except OSError:
                    # Released or taken over just now, or the server is away for a moment.
                    continue


def _read(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _machine() -> str:
    """Names what shares process numbers: host, boot, and the container's process namespace."""
    parts = [socket.gethostname()]
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if boot.exists() and namespace.exists():
        parts += [boot.read_text().strip(), os.readlink(namespace)]
    return " ".join(parts)


def _own_process() -> dict:
    pid = os.getpid()
    return {"machine": _machine(), "pid": pid, "started": _started(pid)}


def _started(pid: int) -> str | None:
    """When a process of this machine began, to tell it from a later one of its number.

    "alive" where the system does not tell; None when there is no such process (or only what is
    left of a killed one that its parent has not asked after).
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # another user's, hence alive
    try:
        # The name, in brackets, may hold spaces; state and start time are fields 3 and 22.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else "alive"
    return None if fields[0] in "ZX" else fields[19]
