"""Reading picture files."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from runtime.errors import UserError
from runtime.files import check_file

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MOST_PIXELS = 2**26
"""Of a picture: 8192 × 8192. As floating-point RGBA that takes 1 GiB."""
# Formats that Pillow decodes itself, without programs of others.
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP")


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
        raise UserError(f"{path} is not a readable picture; save it again as PNG.") from None


def read_picture(path: Path, what: str = "picture") -> np.ndarray:
    """A picture file, upright, as uint8 [H, W, 3 | 4]; see :func:`open_picture` for its errors."""
    image = open_picture(path, what)
    transparent = "A" in image.getbands() or "transparency" in image.info
    try:
        # Phones store pictures as the sensor lay and note the turn.
        image = ImageOps.exif_transpose(image)
    except Exception:
        pass  # a damaged note of it; the picture itself is whole
    return np.asarray(image.convert("RGBA" if transparent else "RGB"))
