"""``triavatar triplanes downsample`` and ``pack``: a triplane set smaller, or in archives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from renderer.fitted_set import FittedSet
from renderer.triplane import shrink_planes
from runtime.config import setting
from runtime.errors import UserError
from runtime.files import write_json
from runtime.formats.shards import write_shards
from runtime.progress import progress


@dataclass
class DownsampleConfig:
    """Copy a triplane set with smaller planes, or in a more compact form."""

    triplanes: Path
    """Triplane folder to read, e.g. what fit-triplanes wrote."""
    output_dir: Path
    """Triplane folder to write; subjects that are there already are kept."""
    size: int | None = None
    """Texels along one side of the new planes, at most those of the old; their own without it."""
    storage: Literal["float16", "uint8"] = "float16"
    """How values are kept: float16, which train-base reads as it would resize them itself, or
    uint8, half the room, with a small error (see triplanes stats)."""


def downsample(config: DownsampleConfig) -> None:
    """Write the smaller set; it is read wherever a triplane set is.

    ``train-base`` resizes on the fly with the same filter and rounds the result to fp16 as this
    does, so it learns from the same numbers either way; from the copy it reads less.

    Raises:
        UserError: the folders are the same, or the size is larger than the set's.
    """
    source = FittedSet.open(config.triplanes)
    full = source.shape[-1]
    size = full if config.size is None else config.size
    if not 0 < size <= full:
        raise UserError(f"size {size} can't be made from {source.folder}, whose planes have {full}")
    if config.output_dir.resolve() == config.triplanes.resolve():
        raise UserError(f"{config.output_dir} is the set itself; give another --output_dir")
    if not source.names:
        raise UserError(f"{source.folder} holds no triplanes")
    shape = (source.shape[0], source.shape[1], size, size)
    target = FittedSet.create(
        config.output_dir, source.decoder(), shape, config.storage, source.identities
    )
    there = set(target.names)
    for name in progress(source.names, desc="downsample", unit="subject"):
        if name not in there:
            target.put(name, shrink_planes(source.load(name), size))
    mib = sum(target.path(name).stat().st_size for name in source.names) / 2**20
    print(
        f"{len(source.names)} triplanes of {size}² in {target.folder}: {mib:.1f} MiB as "
        f"{config.storage}"
    )


@dataclass
class PackConfig:
    """Copy a triplane set into archives, for sets that training streams."""

    triplanes: Path
    """Triplane folder to read."""
    output_dir: Path
    """Folder to write: archives, their index, manifest and decoder; it is read wherever a triplane
    set is."""
    shard_mib: float = setting(256.0, above=0)
    """Size of an archive, MiB."""
    url: str | None = None
    """Where you will put the archives, as fsspec names it (s3://…, https://…, a folder); each is
    fetched from there when it is needed. Beside the index without it."""


def pack(config: PackConfig) -> None:
    """Write tar archives in WebDataset's layout, and the small files that name what they hold.

    Raises:
        UserError: the set is empty or packed already, or the output folder is the set's.
    """
    source = FittedSet.open(config.triplanes)
    if source.shards is not None or config.output_dir.resolve() == source.folder.resolve():
        raise UserError(f"{source.folder} is packed, or is the output folder itself")
    if not source.names:
        raise UserError(f"{source.folder} holds no triplanes")
    decoder = source.decoder()
    config.output_dir.mkdir(parents=True, exist_ok=True)
    decoder.save_pretrained(config.output_dir / "decoder")
    write_json(config.output_dir / "manifest.json", source.manifest)
    listed = progress(source.names, desc="pack", unit="subject")
    files = ((name, source.path(name)) for name in listed)
    most = round(config.shard_mib * 2**20)
    count = write_shards(config.output_dir, files, ".safetensors", most, config.url)
    print(f"{len(source.names)} triplanes in {count} archives: {config.output_dir}")
    if config.url is not None:
        print(f"copy its .tar files to {config.url}; they may then be deleted here")
