"""Ownership of folders: one process writes at a time, and only the work that began it.

Two files in a folder say so. ``lock`` is locked by the operating system for as long as the writing
process lives, so that a killed one leaves nothing to clear away. ``made_by.json`` names the command
and those of its settings that decide what it makes; it is written before anything else, so that
unfinished work is never gone on with under other settings.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from runtime.described import Described, Name, read_described
from runtime.errors import UserError
from runtime.files import is_partial, write_json

LOCK = "lock"
RECORD = "made_by.json"
# What this process holds: a folder may be opened again by the process that writes into it.
_held: dict[Path, FileLock] = {}


class MadeBy(Described):
    """``made_by.json``."""

    command: Name
    settings: dict[str, Any]


def lock_folder(folder: Path) -> None:
    """Make ``folder`` and keep all other processes from writing into it until this one ends.

    On file systems without locks (some network shares) nothing is kept from anyone.

    Raises:
        UserError: another process holds it, with who that is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = folder.resolve() / LOCK
    if place in _held:
        return
    lock = FileLock(place)
    while place not in _held:
        holder = _read_holder(place)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"{folder} is being written by {holder or 'another process'}; wait for it, or "
                "give another output folder."
            ) from None
        except PermissionError:
            raise
        except (NotImplementedError, OSError):
            return
        if place.exists():
            _held[place] = lock
        else:
            lock.release()  # whoever held it has just ended and taken its file away
    with suppress(OSError):  # the name is only for the message
        place.write_text(_describe_process(), encoding="utf-8")


@atexit.register
def release_folders() -> None:
    """Let go of every folder that this process holds; the command that locked them has ended."""
    for place in list(_held):
        _release(place)


def _release(place: Path) -> None:
    lock = _held.pop(place)
    with suppress(OSError):
        place.unlink()
    lock.release(force=True)


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Hold a folder's lock for the time of a block; see :func:`lock_folder`."""
    place = folder.resolve() / LOCK
    before = place in _held
    lock_folder(folder)
    try:
        yield
    finally:
        if not before and place in _held:
            _release(place)


def _describe_process() -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {socket.gethostname()} (since {since})"


def _read_holder(place: Path) -> str:
    try:
        return place.read_text(encoding="utf-8")[:200].strip()
    except (OSError, UnicodeDecodeError):
        return ""


def begin(folder: Path, command: str, settings: Mapping[str, Any]) -> None:
    """Make ``folder`` the place of one piece of work, or find that it is this one's already.

    Args:
        command: the subcommand.
        settings: what decides its results, as plain values.

    Raises:
        UserError: the folder holds anything else, or the same command's work with other settings.
    """
    now = json.loads(json.dumps(dict(settings), default=str))
    record = folder / RECORD
    there = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    # A process that was killed leaves what it was about to write.
    work = [name for name in there if name not in (LOCK, RECORD) and not is_partial(name)]
    if RECORD in there and work:
        _refuse_other_work(
            folder, read_described(MadeBy, record), MadeBy(command=command, settings=now)
        )
        return
    if work:
        raise UserError(
            f"{folder} holds files that {command} did not make ({work[0]}); give a new output "
            "folder."
        )
    write_json(record, {"command": command, "settings": now})


def _refuse_other_work(folder: Path, made: MadeBy, now: MadeBy) -> None:
    if made.command != now.command:
        raise UserError(
            f"{folder} holds the work of {made.command}, not of {now.command}; give another "
            "output folder."
        )
    for key in {**now.settings, **made.settings}:
        before, after = made.settings.get(key), now.settings.get(key)
        if before != after:
            raise UserError(
                f"{folder} was begun with {key} = {before!r}, now it is {after!r}; use the old "
                "value to go on, or give another output folder."
            )
