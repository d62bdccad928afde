"""``triavatar triplanes downsample``: a smaller copy of a triplane set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from renderer.fitted_set import FittedSet
from renderer.triplane import shrink_planes
from runtime.errors import UserError
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
