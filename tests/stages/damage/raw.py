"""Damage that knows nothing of a format: cuts, noise, other kinds of files, planted code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from random import Random
from typing import NamedTuple


class Damage(NamedTuple):
    """What was done to a file.

    Attributes:
        told: in words.
        sure: no reader may take the file for what it was or for another good one. A command must
            refuse it, or give what it gives without the damage.
    """

    told: str
    sure: bool = False


class Planted:
    """Unpickled, it makes a file: the proof that code of a file was run."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


NO_FILES = ("folder", "pipe", "circle", "device", "dangling")
WHOLE_ONLY = (".json", ".png", ".jpg", ".safetensors", ".pt", ".bin", ".npy", ".glb")
"""Formats whose readers notice that an end is missing."""


def damage_raw(path: Path, random: Random, mark: Path) -> Damage:
    """Damage a file. ``mark`` is the file that planted code would make."""
    before = content = path.read_bytes()
    kind = random.choice(
        ["cut", "cut", "empty", "flip", "flip", "noise", "more", "utf16", "bom", "nul"]
        + ["long", "pickle", "gone", *NO_FILES]
    )
    if kind in NO_FILES or kind == "gone":
        path.unlink()
    if kind == "cut":
        content = content[: random.randrange(max(1, len(content) * 9 // 10))]
    elif kind == "flip":
        changed = bytearray(content or b"x")
        for _ in range(random.choice([1, 3, 40])):
            changed[random.randrange(len(changed))] = random.randrange(256)
        content = bytes(changed)
    elif kind == "utf16":
        content = content.decode("latin-1").encode("utf-16")
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "circle":
        path.symlink_to(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "dangling":
        path.symlink_to("/nowhere/at/all")
    elif kind == "long":
        with open(path, "r+b") as file:
            file.truncate(2**40)  # takes no room on disk
    elif kind != "gone":
        replaced = {
            "empty": b"",
            "noise": random.randbytes(300),
            "more": content + b"\0trailing",
            "bom": b"\xef\xbb\xbf" + content,
            "nul": b"\0" * 100,
            "pickle": pickle.dumps(Planted(mark)),
        }
        path.write_bytes(replaced.get(kind, content))
    other = kind in ("cut", "empty", "noise", "nul", "pickle", "utf16")
    noticed = other or (kind == "flip" and path.suffix == ".pt" and path.read_bytes() != before)
    return Damage(kind, kind in NO_FILES or (noticed and path.suffix in WHOLE_ONLY))
