"""Reading picture files."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from runtime.errors import UserError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def read_picture(path: Path, what: str = "picture") -> np.ndarray:
    """A picture file, upright, as uint8 [H, W, 3 | 4].

    Args:
        path: the file.
        what: how an error calls it.

    Raises:
        UserError: the file is missing or can't be read.
    """
    try:
        with Image.open(path) as image:
            image.load()
            transparent = "A" in image.getbands() or "transparency" in image.info
            # Phones store pictures as the sensor lay and note the turn.
            upright = ImageOps.exif_transpose(image)
            return np.asarray(upright.convert("RGBA" if transparent else "RGB"))
    except FileNotFoundError:
        raise UserError(f"there is no {what} {path}") from None
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not a readable picture ({error})") from None
