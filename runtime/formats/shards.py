"""Many small files in few large ones: tar archives in WebDataset's layout, read by name.

::

    <folder>/shards.json       archive, offset and size of every file; where archives come from
    <folder>/000000.tar        <name>.<suffix> of some names, one after the other
    <folder>/fetched/          archives of another place, as many as there is room for

A tar archive stores files unpacked, so that one of them is read by a seek and a read. Archives may
lie elsewhere (an object store, a web server: any address fsspec knows); one is then fetched whole
when a file of it is first asked for, and the one that was unused for longest makes room.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Literal

from filelock import FileLock
from pydantic import Field

from runtime.described import Described, read_described
from runtime.errors import UserError
from runtime.files import atomic_path, write_json

INDEX = "shards.json"
ROOM = "TRIAVATAR_SHARDS_GIB"
"""Variable: GiB that fetched archives may take on this machine's disk."""
DEFAULT_ROOM_GIB = 64.0
Place = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]


class Shard(Described):
    """One archive."""

    file: Annotated[str, Field(pattern=r"^[0-9]{6}\.tar$")]
    members: dict[str, Place]


class ShardIndex(Described):
    """``shards.json``."""

    format: Literal["triavatar-shards"]
    version: Literal[1]
    suffix: str
    url: str | None = None
    shards: list[Shard]


def write_shards(
    folder: Path,
    files: Iterable[tuple[str, Path]],
    suffix: str,
    most_bytes: int,
    url: str | None = None,
) -> int:
    """Pack files into archives of about one size, and write the index last.

    Args:
        folder: where to.
        files: name and file, in the order of the archives.
        suffix: of every file, e.g. ``.safetensors``.
        most_bytes: of an archive; it holds one file at least.
        url: where the archives will be read from; beside the index without it.

    Returns:
        Number of archives.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[Shard] = []
    batch: list[tuple[str, Path]] = []
    size = 0

    def close() -> None:
        if batch:
            file = f"{len(shards):06d}.tar"
            shards.append(Shard(file=file, members=_write_tar(folder / file, batch, suffix)))

    for name, path in files:
        own = path.stat().st_size
        if batch and size + own > most_bytes:
            close()
            batch, size = [], 0
        batch.append((name, path))
        size += own
    close()
    index = ShardIndex(format="triavatar-shards", version=1, suffix=suffix, url=url, shards=shards)
    write_json(folder / INDEX, index.model_dump())
    return len(shards)


def _write_tar(path: Path, files: list[tuple[str, Path]], suffix: str) -> dict[str, Place]:
    with atomic_path(path) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
            for name, file in files:
                entry = tarfile.TarInfo(name + suffix)  # no time, no owner: the same bytes again
                entry.size = file.stat().st_size
                with file.open("rb") as content:
                    archive.addfile(entry, content)
        with tarfile.open(temporary) as archive:
            return {
                entry.name.removesuffix(suffix): [entry.offset_data, entry.size]
                for entry in archive
            }


class Shards:
    """Reads files of a packed folder by name.

    Attributes:
        folder: of the index.
        members: names in each archive.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = read_described(ShardIndex, folder / INDEX)
        self.members = [list(shard.members) for shard in self.index.shards]
        self._shard_of = {name: shard for shard in self.index.shards for name in shard.members}
        self.room_gib = float(os.environ.get(ROOM, DEFAULT_ROOM_GIB))

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._shard_of)

    def __contains__(self, name: str) -> bool:
        return name in self._shard_of

    def read(self, name: str) -> bytes:
        """The content of a name's file.

        Raises:
            UserError: there is none, or its archive can't be fetched or is damaged.
        """
        if name not in self:
            raise UserError(f"{self.folder / INDEX} has no {name}")
        shard = self._shard_of[name]
        offset, size = shard.members[name]
        path = self.archive(shard.file)
        try:
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        except FileNotFoundError:  # another process made room a moment ago
            with self.archive(shard.file).open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        if len(data) < size:
            raise UserError(f"{path} is truncated: delete it, or pack the set again")
        return data

    def archive(self, file: str) -> Path:
        """The archive on this machine, fetched if it has to be."""
        if self.index.url is None:
            path = self.folder / file
            if not path.exists():
                raise UserError(f"{path} is missing: copy it there, or pack the set again")
            return path
        path = self.folder / "fetched" / file
        if path.exists():
            os.utime(path)  # used last
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                self._fetch(f"{self.index.url.rstrip('/')}/{file}", path)
        return path

    def _fetch(self, url: str, path: Path) -> None:
        import fsspec

        try:
            with fsspec.open(url, "rb") as source:
                size = getattr(source, "size", None) or 0
                self._make_room(path.parent, size)
                with atomic_path(path) as temporary, temporary.open("wb") as target:
                    _copy(source.read, target.write)
        except (ImportError, ValueError, OSError) as error:
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{url} can't be fetched ({line:.120})") from None

    def _make_room(self, folder: Path, size: int) -> None:
        kept = sorted(folder.glob("*.tar"), key=lambda path: path.stat().st_mtime)
        taken = sum(path.stat().st_size for path in kept)
        while kept and taken + size > self.room_gib * 2**30:
            oldest = kept.pop(0)
            taken -= oldest.stat().st_size
            oldest.unlink(missing_ok=True)


def _copy(read: Callable[[int], bytes], write: Callable[[bytes], object]) -> None:
    while chunk := read(2**22):
        write(chunk)
