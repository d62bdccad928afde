"""A copy of the chain's folders, of which one file is damaged."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.stages.conftest import Chain


@dataclass
class World(Chain):
    """A copy of the chain's folders.

    Attributes:
        begun: the chain; its runs remember where their inputs lay.
    """

    begun: Chain


def own_world(world: Chain, folder: Path, resumed: str) -> World:
    """The world again, sharing all files but those of a run that is gone on with."""
    base = world.root.parent
    shutil.copytree(base, folder, copy_function=os.link)
    if resumed:
        shutil.rmtree(folder / "out" / resumed)
        shutil.copytree(base / "out" / resumed, folder / "out" / resumed)
    begun = world.begun if isinstance(world, World) else world
    return World(folder / "set", folder / "out", folder / "configs", begun)


def write_index(model: Path) -> None:
    """State the hashes of a model's files as they are now."""
    path = model / "bundle.json"
    index = json.loads(path.read_text())
    for name, entry in index["files"].items():
        file = model / name
        if file.is_file() and not file.is_symlink() and file.stat().st_size < 2**30:
            content = file.read_bytes()
            entry |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    path.unlink()  # it shares its bytes with other worlds
    path.write_text(json.dumps(index))
