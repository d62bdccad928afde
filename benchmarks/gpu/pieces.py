"""Bring a folder of models back through a door that lets small files pass.

    python benchmarks/gpu/pieces.py split RUN/snapshots/model OUT/base
    python benchmarks/gpu/pieces.py split RUN/decoder OUT/decoder --exact
    python benchmarks/gpu/pieces.py join OUT/base.* --output_dir model

``split`` stores weights in half precision and cuts the archive into pieces; ``join`` puts them
together, checks them and makes fp32 again of what was halved. ``--exact`` keeps weights as they
are, for what is known by its hash.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

PIECE = 15 * 2**20
HALVED = ".halved.safetensors"


def split(folder: Path, prefix: Path, piece: int = PIECE, exact: bool = False) -> list[Path]:
    """Write ``prefix``.000, .001, …, each of at most ``piece`` bytes; returns them.

    Args:
        folder: of the model.
        prefix: of the files.
        piece: bytes of a file at most.
        exact: leave weights as they are.

    Raises:
        SystemExit: there is no such folder, or half precision can't hold its weights.

    The first line of the first piece is the SHA-256 of all that follows.
    """
    if not folder.is_dir():
        raise SystemExit(f"error: there is no folder {folder}: its training has not saved yet")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive, tempfile.TemporaryDirectory() as tmp:
        for path in sorted(folder.rglob("*")):
            if not path.is_file():
                continue
            name = str(path.relative_to(folder))
            if path.suffix == ".safetensors" and not exact:
                halved = Path(tmp) / "halved.safetensors"
                if _halve(path, halved):
                    path, name = halved, name.removesuffix(".safetensors") + HALVED
            archive.add(path, name)
    data = packed.getvalue()
    data = hashlib.sha256(data).hexdigest().encode() + b"\n" + data
    prefix.parent.mkdir(parents=True, exist_ok=True)
    for old in prefix.parent.glob(f"{prefix.name}.[0-9][0-9][0-9]"):
        old.unlink()
    written = []
    for start in range(0, len(data), piece):
        path = prefix.with_name(f"{prefix.name}.{len(written):03d}")
        path.write_bytes(data[start : start + piece])
        written.append(path)
    return written


def _halve(path: Path, target: Path) -> bool:
    """Write a file's fp32 tensors as halves; False where it has none."""
    import torch
    from safetensors.torch import load_file, save_file

    def halved(tensor: Any) -> Any:
        half = tensor.half() if tensor.dtype == torch.float32 else tensor
        if half.is_floating_point() and not torch.isfinite(half).all():
            raise SystemExit("error: weights too large for half precision, or not finite")
        return half

    tensors = load_file(path)
    if all(tensor.dtype != torch.float32 for tensor in tensors.values()):
        return False
    save_file({key: halved(value) for key, value in tensors.items()}, target)
    return True


def join(pieces: list[Path], folder: Path) -> None:
    """Unpack pieces, given in any order, into a new folder."""
    data = b"".join(path.read_bytes() for path in sorted(pieces))
    digest, _, packed = data.partition(b"\n")
    if hashlib.sha256(packed).hexdigest().encode() != digest:
        raise SystemExit("error: the pieces are not whole: give all of one model, and no other")
    with tempfile.TemporaryDirectory() as tmp:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(tmp, filter="data")
        for path in list(Path(tmp).rglob(f"*{HALVED}")):
            whole = path.with_name(path.name.removesuffix(HALVED) + ".safetensors")
            _double(path, whole)
            path.unlink()
        shutil.copytree(tmp, folder)


def _double(path: Path, target: Path) -> None:
    """Write a file's halves as fp32."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = {
        key: value.float() if value.dtype == torch.float16 else value
        for key, value in load_file(path).items()
    }
    save_file(tensors, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("split")
    command.add_argument("folder", type=Path)
    command.add_argument("prefix", type=Path)
    command.add_argument("--exact", action="store_true", help="keep weights as they are")
    command = commands.add_parser("join")
    command.add_argument("pieces", type=Path, nargs="+")
    command.add_argument("--output_dir", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "split":
        for path in split(arguments.folder, arguments.prefix, exact=arguments.exact):
            print(f"{path} {path.stat().st_size}")
    else:
        join(arguments.pieces, arguments.output_dir)
        print(arguments.output_dir)


if __name__ == "__main__":
    main()
