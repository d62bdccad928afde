"""Reading picture files, and finding them in folders."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from runtime.errors import UserError
from runtime.files import check_file

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
# What people have too, and Pillow reads only with the help of others.
FOREIGN_SUFFIXES = (".heic", ".heif", ".avif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw")
MOST_PIXELS = 2**26
"""Of a picture: 8192 × 8192. As floating-point RGBA that takes 1 GiB."""
# Formats that Pillow decodes itself, without programs of others.
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")


def open_picture(path: Path, what: str = "picture", *, decode: bool = True) -> Image.Image:
    """Return a picture file's picture.

    Args:
        path: the file.
        what: how an error calls it.
        decode: whether to decode it; without, only its header has been read: size, bands, format.

    Raises:
        UserError: the file is missing, can't be read, or is larger than :data:`MOST_PIXELS`.
    """
    try:
        check_file(path)
    except UserError as error:
        raise UserError(f"{what} missing: {error}") from None
    too_large = UserError(f"{path} has more than {MOST_PIXELS} pixels; make the picture smaller.")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise too_large
            if decode:
                image.load()
            return image
    except (UserError, PermissionError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise too_large from None
    except Exception:
        # Its many decoders raise whatever goes wrong in them.
        if path.suffix.lower() in FOREIGN_SUFFIXES:
            raise UserError(
                f"{path} is of a kind that can't be read here; save it as JPEG or PNG."
            ) from None
        raise UserError(f"{path} is not a readable picture; save it again as PNG.") from None


def read_picture(path: Path, what: str = "picture") -> np.ndarray:
    """A picture file, upright, as uint8 [H, W, 3 | 4]; see :func:`open_picture` for its errors."""
    return upright_array(open_picture(path, what))


def upright_array(image: Image.Image) -> np.ndarray:
    """Return a picture as uint8 [H, W, 3 | 4], turned as its EXIF data say."""
    transparent = "A" in image.getbands() or "transparency" in image.info
    try:
        # Phones store pictures as the sensor lay and note the turn.
        image = ImageOps.exif_transpose(image)
    except Exception:
        pass  # a damaged note of it; the picture itself is whole
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    return np.asarray(image.convert("RGBA" if transparent else "RGB"))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits or more as 8 bits; Pillow's own conversion cuts off all above 255."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    # 16 bits spread over 65535; floats over 1, or over whatever a program wrote.
    most = max(1.0, float(values.max(initial=1.0))) if image.mode == "F" else 65535.0
    return Image.fromarray((values / most * 255).clip(0, 255).round().astype(np.uint8))


def list_pictures(folder: Path) -> list[Path]:
    """Return the pictures of a folder, sorted.

    Those of a kind that may not be readable here are among them, so that reading them says so.

    Raises:
        UserError: there are none.
    """
    kinds = PICTURE_SUFFIXES + FOREIGN_SUFFIXES
    found = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in kinds)
    if not found:
        raise UserError(f"{folder} holds no pictures ({', '.join(PICTURE_SUFFIXES)}).")
    return found


def name_pictures(paths: Iterable[Path]) -> dict[str, Path]:
    """Return the pictures among files and folders of them, by the names of the files.

    Raises:
        UserError: a folder holds no pictures, or two have the same name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        for file in list_pictures(path) if path.is_dir() else [path]:
            if file.stem in found:
                raise UserError(f"{file} and {found[file.stem]} have the same name; rename one.")
            found[file.stem] = file
    return found
