"""Copy the studio's assets with smaller pictures, so that they travel.

python benchmarks/gpu/shrink_assets.py ASSETS SMALLER --side 1024
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from PIL import Image


def shrink(source: Path, target: Path, side: int) -> int:
    """Copy a tree; pictures wider or higher than ``side`` pixels are reduced. Returns its bytes."""
    for path in sorted(source.rglob("*")):
        if not path.is_file():
            continue
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as file:
            is_picture = file.read(8) == b"\x89PNG\r\n\x1a\n"
        if is_picture:
            picture = Image.open(path)
            if max(picture.size) > side:
                picture.thumbnail((side, side), Image.Resampling.LANCZOS)
            picture.save(copy, format="PNG", optimize=True)
        else:
            shutil.copyfile(path, copy)
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--side", type=int, default=1024)
    arguments = parser.parse_args()
    size = shrink(arguments.source, arguments.target, arguments.side)
    print(f"{arguments.target}: {size / 2**20:.1f} MB")


if __name__ == "__main__":
    main()
