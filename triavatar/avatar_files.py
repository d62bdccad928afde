"""Finding triplanes on disk, and the decoder each belongs to.

Letters: C channels, H W plane size.
"""

from pathlib import Path

from torch import Tensor

from renderer.decoder import TriplaneDecoder
from renderer.fitted_set import FittedSet, load_decoder
from renderer.triplane import load_triplane
from runtime.errors import UserError

SUFFIXES = (".safetensors", ".npy")


def find_triplanes(path: Path) -> dict[str, Path]:
    """Return the triplane files at a path, by name.

    Args:
        path: a triplane file, a folder of them, a triplane folder (its manifest beside), or the
            folder of one generated avatar, ``<run>/avatars/<name>``.

    Raises:
        UserError: there are none.
    """
    if path.is_file():
        return {path.stem: path}
    if not path.is_dir():
        raise UserError(f"no triplane at {path}: the file or folder does not exist")
    if (path / "manifest.json").is_file():
        fitted = FittedSet.open(path)
        found = {name: fitted.path(name) for name in fitted.names}
    elif path.parent.name == "avatars" and (path.parent.parent / "manifest.json").is_file():
        file = FittedSet.open(path.parent.parent).path(path.name)
        found = {path.name: file} if file.is_file() else {}
    else:
        found = {p.stem: p for p in sorted(path.iterdir()) if p.suffix in SUFFIXES}
    if not found:
        raise UserError(f"{path} holds no triplanes ({', '.join(SUFFIXES)})")
    return found


def set_of(path: Path) -> FittedSet | None:
    """Return the triplane folder that a triplane file belongs to, if it lies in one."""
    folder = path.parent.parent
    if path.parent.name != "triplanes" or not (folder / "manifest.json").is_file():
        return None
    fitted = FittedSet.open(folder)
    return fitted if path == fitted.path(path.stem) else None


def open_triplane(path: Path, decoder: Path | None) -> tuple[Tensor, TriplaneDecoder]:
    """Read a triplane file with the decoder it belongs to.

    Args:
        path: ``.safetensors`` or ``.npy``; inside a triplane folder its decoder is found there.
        decoder: decoder folder; needed for a file outside a triplane folder.

    Returns:
        Planes fp32 [3, C, H, W] and the decoder, both on the CPU.

    Raises:
        UserError: a file is missing or damaged, or the two don't fit each other.
    """
    fitted = set_of(path)
    if fitted is not None:
        if decoder is None:
            return fitted.load(path.stem), fitted.decoder()
        return fitted.load(path.stem), load_decoder(decoder, fitted.manifest["decoder_hash"])
    if decoder is None:
        raise UserError(f"{path} lies in no triplane folder; name its decoder with --decoder.")
    planes, loaded = load_triplane(path), load_decoder(decoder)
    if planes.shape[1] != loaded.config["channels"]:
        raise UserError(
            f"{path} has {planes.shape[1]} channels but the decoder {decoder} takes "
            f"{loaded.config['channels']}; give the decoder the triplane was fitted with."
        )
    return planes, loaded
