"""Rows of one size in one file, made when first asked for and shared by a machine's processes.

What training reads again and again (planes shrunk to the model's size, portraits in bytes) is
computed once and read back ever after, whatever the number of loading processes, runs and GPUs.
The operating system keeps as much of the file in memory as there is room for: one cache for the
machine, which holds what was read in memory once and not once a process.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from runtime.seeds import seed_of

_HEADER = struct.Struct("<QI4x")
"""Of a row: signature of its source, checksum of its bytes."""


def file_signature(path: Path, *key: str) -> int:
    """A number that changes when a file is written anew; a copied set keeps its rows."""
    state = path.stat()
    return seed_of(state.st_mtime_ns, state.st_size, *key)


class PreparedRows:
    """A file of equal rows, one for each name.

    A row counts only if its signature is its source's and its checksum is right: rows of sources
    that changed, half-written ones and rows of a set that has grown since are made again. Where the
    file can't be written (a read-only or full disk) rows are made every time.

    Args:
        path: the file; it grows row by row.
        names: all names, in the order of their rows.
        shape, dtype: of a row.
        make: computes a name's row.
        source: the file that a name's row is made from.
    """

    def __init__(
        self,
        path: Path,
        names: Sequence[str],
        shape: Sequence[int],
        dtype: torch.dtype,
        make: Callable[[str], Tensor],
        source: Callable[[str], Path],
    ) -> None:
        self.path, self.shape, self.dtype = path, tuple(shape), dtype
        self.make, self.source = make, source
        self.bytes = prod(self.shape) * torch.empty((), dtype=dtype).element_size()
        self._places = {name: index for index, name in enumerate(names)}
        self.writable = True

    def __getitem__(self, name: str) -> Tensor:
        """The row of a name; it may be changed."""
        offset = self._places[name] * (self.bytes + _HEADER.size)
        signature = file_signature(self.source(name), name, str(self.shape), str(self.dtype))
        found = self._read(offset, signature)
        if found is None:
            row = self.make(name).to(self.dtype).contiguous()
            self._write(offset, signature, row)
            return row
        return torch.frombuffer(found, dtype=self.dtype).reshape(self.shape)

    def _read(self, offset: int, signature: int) -> bytearray | None:
        data = bytearray(self.bytes)
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                header = file.read(_HEADER.size)
                size = file.readinto(data)
        except OSError:
            return None
        if len(header) < _HEADER.size or size < self.bytes:
            return None
        return data if _HEADER.unpack(header) == (signature, zlib.crc32(data)) else None

    def _write(self, offset: int, signature: int, row: Tensor) -> None:
        if not self.writable:
            return
        data = row.view(torch.uint8).numpy().tobytes()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
            with self.path.open("r+b", buffering=0) as file:
                # Last what makes it count. Processes that write the same row write the same bytes.
                file.seek(offset + _HEADER.size)
                file.write(data)
                file.seek(offset)
                file.write(_HEADER.pack(signature, zlib.crc32(data)))
        except OSError:
            self.writable = False
