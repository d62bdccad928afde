"""Atomic writing: a file is either whole under its name or not there at all."""

import errno
import hashlib
import json
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtime.errors import UserError

MOST_TEXT = 64 * 2**20
"""Bytes that a text file may have; parsed, JSON takes up to twenty times as much memory."""

MOST_LINE = 2**20
"""Bytes that a line of a log may have."""
_PARTIAL = ".partial-"
_UMASK = os.umask(0)
os.umask(_UMASK)
# Folders whose leftovers of killed processes this process has removed.
_swept: set[Path] = set()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write to; rename it to ``path`` on success.

    The temporary file has the same name and suffix in a hidden folder beside ``path``, so it is
    on the same file system (the rename is atomic) and no listing of the folder's files sees it.
    If the block raises, the temporary file is removed and ``path`` stays as it was.

    Args:
        path: final file name; its folder is made when missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent not in _swept:
        _swept.add(path.parent)
        _sweep(path.parent.glob(f"{_PARTIAL}*"))
    prefix = f"{_PARTIAL}{socket.gethostname()}-{os.getpid()}-"
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
    try:
        temporary = folder / path.name
        with noticing_full_disk(folder):
            yield temporary
        share(temporary)
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; rename it to ``folder`` on success.

    If the block raises, nothing is left.

    Args:
        folder: its final name, which must not exist yet.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent.glob(f"{_PARTIAL}*"))
    prefix = f"{_PARTIAL}{socket.gethostname()}-{os.getpid()}-"
    temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        yield temporary
        share(temporary)
        for file in temporary.rglob("*"):
            if file.is_file():
                with open(file, "rb") as handle:
                    os.fsync(handle.fileno())
        os.rename(temporary, folder)
        _sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def share(path: str | Path) -> None:
    """Give a file, or a folder with all in it, the modes that the umask asks for.

    Temporary folders and safetensors files are readable by their owner alone, whatever the umask.
    """
    path = Path(path)
    for inner in [path, *path.rglob("*")]:
        if not inner.is_symlink():
            os.chmod(inner, (0o777 if inner.is_dir() else 0o666) & ~_UMASK)


@contextmanager
def noticing_full_disk(folder: Path) -> Iterator[None]:
    """Turn what libraries raise on a full disk, each in its own words, into the system's error."""
    try:
        yield
    except (OSError, UserError, MemoryError):
        raise
    except Exception as error:
        try:
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(bytes(2**20))
                probe.flush()
        except OSError as full:
            if full.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise full from error
        raise


def _sync_folder(folder: Path) -> None:
    """Make a rename durable where the system can sync a folder (not on Windows)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_partial(name: str) -> bool:
    """Return whether a file or folder of this name is one that was being written."""
    return name.startswith(_PARTIAL)


def remove_stale(folder: str | Path) -> None:
    """Remove what killed processes of this host left half-written below ``folder``."""
    _sweep(Path(folder).rglob(f"{_PARTIAL}*"))


def _sweep(partials: Iterable[Path]) -> None:
    own = f"{_PARTIAL}{socket.gethostname()}-"
    for partial in list(partials):
        pid = partial.name.removeprefix(own).split("-")[0]
        if partial.name.startswith(own) and pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(partial, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def drop_half_line(file: Path) -> None:
    """Remove what follows a text file's last end of line, if there is such a file.

    Raises:
        UserError: no line of ours is as long as the last one.
    """
    if not file.is_file():
        return
    with open(file, "r+b") as handle:
        size = handle.seek(0, os.SEEK_END)
        start = max(0, size - MOST_LINE)
        handle.seek(start)
        end = handle.read().rfind(b"\n") + 1
        if not end and start:
            raise UserError(f"{file} is damaged (a line without an end); delete it.")
        if start + end < size:
            handle.truncate(start + end)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN and infinity are refused (ValueError)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def check_file(path: str | Path, most: int | None = None) -> int:
    """Return the size in bytes of a plain file, before anything of it is read.

    A pipe would make its reader wait for ever, and a device would never end.

    Args:
        most: largest size in bytes that such a file can have.

    Raises:
        UserError: there is no such file, it is none, or it is too large.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} does not exist; check the folder it should be in.") from None
    except PermissionError:
        raise
    except (OSError, ValueError):
        # A circle of links, a name too long for the system, a NUL in it.
        raise UserError(f"{str(path)!r:.200} can't be the name of a file; check it.") from None
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{path} is a folder; a file is expected there.")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is a pipe, socket or device; a plain file is expected there.")
    if most is not None and status.st_size > most:
        raise UserError(
            f"{path} has {status.st_size} bytes where at most {most} are expected; it is damaged "
            "or another file."
        )
    return status.st_size


def inside(folder: Path, name: str | Path) -> Path:
    """Return ``folder / name``, where ``name`` comes from a file that others have written.

    Raises:
        UserError: ``..``, a link or an absolute path leads out of the folder.
    """
    path = folder / name
    try:
        within = path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        within = False
    if not within:
        raise UserError(f"{str(path)!r:.200} leads out of {folder}; put a copy of the file there.")
    return path


def read_text(path: str | Path, most: int = MOST_TEXT) -> str:
    """Read a UTF-8 text file, with or without a byte order mark.

    Raises:
        UserError: see :func:`check_file`; or the file is not UTF-8.
    """
    check_file(path, most)
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}); save it in that encoding."
        ) from None


def read_json(path: str | Path, most: int = MOST_TEXT) -> Any:
    """Read a JSON file; :mod:`runtime.described` also checks what it says.

    Raises:
        UserError: see :func:`read_text`; or the file is not valid JSON.
    """
    text = read_text(path, most)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{path} is not valid JSON ({place}); write it again.") from None
    except (ValueError, RecursionError):
        # NaN or infinity, thousands of digits, thousands of brackets.
        raise UserError(
            f"{path} holds NaN, an infinite or endless number, or is nested too deeply; write it "
            "again."
        ) from None


def _refuse_constant(name: str) -> float:
    raise ValueError(name)


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def replace_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Write a folder beside its place and swap it in whole."""
    fresh, old = folder.with_name(f".new_{folder.name}"), folder.with_name(f".old_{folder.name}")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    with noticing_full_disk(fresh):
        write(fresh)
    share(fresh)
    if folder.exists():
        os.rename(folder, old)
    os.rename(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)
