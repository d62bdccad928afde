"""Any picture of a person to a portrait that an avatar can be made of.

Legend: H, W picture size, S side of the portrait in pixels.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from photos.matte import with_alpha
from photos.portraits import PortraitMaker, PortraitSettings, is_photograph, padded_square
from runtime.errors import UserError
from runtime.picture_files import read_picture, upright_array

Picture = str | Path | Image.Image | np.ndarray
"""A file, or a picture in memory: uint8 [H, W, 3 | 4], straight alpha."""
LEAST_COVERED = 0.02
"""Of a portrait, by the person; a head that fills a quarter of the side covers three times that."""


class Preparer:
    """Turns pictures into portraits framed as the models know them; loads what it needs when asked.

    Attributes:
        settings: how photographs become portraits.
    """

    def __init__(self, settings: PortraitSettings) -> None:
        self.settings = settings
        self._maker: PortraitMaker | None = None

    @property
    def maker(self) -> PortraitMaker:
        """What frames photographs; UserError if a package or a model file is missing."""
        if self._maker is None:
            self._maker = PortraitMaker(self.settings)
        return self._maker

    def __call__(
        self, picture: Picture, name: str = "the picture", *, as_it_is: bool = False
    ) -> np.ndarray:
        """Return a portrait, uint8 [S, S, 3 | 4], straight alpha.

        A photograph is framed by its face and cut out. So is one on white or cut out already, with
        what it is cut out by; where its head stands as in the set, it keeps every pixel.

        Args:
            picture: of a person.
            name: how an error calls a picture that is no file.
            as_it_is: take it for a portrait, whatever it looks like.

        Raises:
            UserError: it can't be read, is empty, or doesn't show one face well enough.
        """
        array = read_portrait(picture)
        where = str(picture) if isinstance(picture, str | Path) else name
        if as_it_is:
            pass
        elif is_photograph(array):
            array = self.maker(array, where)
        elif not _covers(with_alpha(array)):
            raise UserError(f"{where} is empty: white or transparent nearly everywhere.")
        elif find_spec("cv2") is None:  # faces can't be looked for
            array = padded_square(with_alpha(array)) if array.shape[0] != array.shape[1] else array
        else:
            cut_out = with_alpha(array)
            aligned = self.maker.aligned(cut_out, where)
            array = array if aligned is cut_out else aligned
        check_portrait(array, where)
        return array


def read_portrait(picture: Picture) -> np.ndarray:
    """Return a picture, a file or in memory, as uint8 [H, W, 3 | 4]."""
    if isinstance(picture, Image.Image):
        return upright_array(picture)
    if isinstance(picture, str | Path):
        return read_picture(Path(picture), "portrait")
    return picture


def check_portrait(portrait: np.ndarray, where: str) -> None:
    """Refuse what no avatar can be made of.

    Raises:
        UserError: it is no square picture of 8 bits, or nothing is in it.
    """
    if portrait.dtype != np.uint8 or portrait.ndim != 3 or portrait.shape[2] not in (3, 4):
        raise UserError(f"{where} must be uint8 [S, S, 3 or 4], not {list(portrait.shape)}.")
    height, width = portrait.shape[:2]
    if height != width:
        raise UserError(
            f"{where} is {width} × {height} pixels, not square; crop it to a square around the "
            "head."
        )
    if not _covers(with_alpha(portrait)):
        raise UserError(f"{where} is empty: white or transparent nearly everywhere.")


def _covers(rgba: np.ndarray) -> bool:
    """Whether anybody is in a picture, uint8 [H, W, 4]."""
    return float((rgba[..., 3] > 127).mean()) >= LEAST_COVERED
