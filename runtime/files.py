"""Atomic writing: a file is either whole under its name or not there at all."""

import hashlib
import json
import os
import pickle
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runtime.errors import UserError

_PARTIAL = ".partial-"
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
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable where the system can sync a folder (not on Windows)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN and infinity are refused (ValueError)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing or is not valid JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the folder it should be in.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); write it again.") from None


def save_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Save tensors as one safetensors file, atomically.

    Args:
        path: file to write, usually with suffix ``.safetensors``.
        tensors: name → tensor of any dtype and device (made contiguous and copied to CPU).
        metadata: strings stored in the header.
    """
    from safetensors.torch import save_file

    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(ready, temporary, metadata=dict(metadata) if metadata else None)


def load_state(path: Path, cure: str) -> Any:
    """What ``torch.save`` wrote of tensors and plain values, tensors on the CPU.

    Args:
        cure: what to do about a damaged file, for the message.

    Raises:
        UserError: the file is gone or can't be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} can't be read ({reason}); {cure}") from None


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Load a safetensors file: (name → CPU tensor, metadata).

    Raises:
        UserError: the file is missing, truncated or not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise UserError(f"{path} does not exist; check the folder it should be in.")
    try:
        with safe_open(str(path), framework="pt") as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}
            return tensors, dict(handle.metadata() or {})
    except SafetensorError as error:
        raise UserError(
            f"{path} is truncated or no safetensors file ({error}); delete it and make it again."
        ) from None


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
