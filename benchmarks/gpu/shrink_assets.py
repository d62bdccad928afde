"""Pack the studio's assets small enough to travel: smaller pictures, one compressed archive.

python benchmarks/gpu/shrink_assets.py ASSETS assets.tar.xz --side 1024
"""

from __future__ import annotations

import argparse
import io
import tarfile
from pathlib import Path

from PIL import Image


def smaller(path: Path, side: int) -> bytes:
    """A file's bytes; of a PNG, a WebP of at most ``side`` pixels under its name.

    The studio reads pictures by their content, not by their name.
    """
    data = path.read_bytes()
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    picture = Image.open(io.BytesIO(data))
    picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, format="WEBP", quality=90)
    return min(data, out.getvalue(), key=len)


def pack(source: Path, target: Path, side: int) -> int:
    """Write the archive; its bytes."""
    with tarfile.open(target, "w:xz", preset=6) as archive:
        for path in sorted(source.rglob("*")):
            if not path.is_file() or ".git" in path.parts:
                continue
            data = smaller(path, side)
            entry = tarfile.TarInfo(str(path.relative_to(source)))
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return target.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--side", type=int, default=1024)
    arguments = parser.parse_args()
    size = pack(arguments.source, arguments.target, arguments.side)
    print(f"{arguments.target}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
