"""Pictures of a multi-view set: reading, straight alpha, resizing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import ConfigDict

from runtime.errors import UserError
from runtime.picture_files import open_picture


@dataclass(frozen=True)
class PictureFormat:
    """The conventions of a set's pictures.

    Attributes:
        matte: sRGB colour 0 … 255 that the colours are blended with by alpha; none for straight
            alpha, (0, 0, 0) for premultiplied.
        inverted_alpha: alpha is 0 on the subject.
        portrait_frame: number of the frontal portrait.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")

    matte: tuple[int, int, int] | None = None
    inverted_alpha: bool = False
    portrait_frame: int = 0

    def __post_init__(self) -> None:
        if self.matte is not None:
            levels = list(self.matte) if isinstance(self.matte, list | tuple) else []
            if len(levels) != 3 or not all(isinstance(v, int) and 0 <= v <= 255 for v in levels):
                raise UserError(f"pictures.matte is {self.matte!r}; it must be three of 0 … 255")
        if not isinstance(self.inverted_alpha, bool):
            raise UserError("pictures.inverted_alpha must be true or false")
        if not isinstance(self.portrait_frame, int) or self.portrait_frame < 0:
            raise UserError("pictures.portrait_frame must be a frame number")

    def read(self, path: Path) -> Image.Image:
        """An RGBA picture with straight alpha; see :func:`read_rgba` for its errors."""
        image = read_rgba(path)
        if self.matte is None and not self.inverted_alpha:
            return image
        rgba = np.asarray(image, dtype=np.float32)
        alpha = 255 - rgba[..., 3:] if self.inverted_alpha else rgba[..., 3:]
        color = rgba[..., :3]
        if self.matte is not None:
            share = alpha / 255
            matte = np.asarray(self.matte, dtype=np.float32)
            color = (color - (1 - share) * matte) / np.maximum(share, 1 / 255)
        straight = np.concatenate([color.clip(0, 255), alpha], axis=-1)
        return Image.fromarray((straight + 0.5).astype(np.uint8), "RGBA")


def read_rgba(path: Path) -> Image.Image:
    """An RGBA picture; :class:`UserError` if it is missing, damaged or has no alpha."""
    image = open_picture(path)
    if "A" not in image.getbands():
        raise UserError(
            f"{path} has no alpha channel ({image.mode}); the set needs RGBA pictures "
            "with the background cut out"
        )
    return image.convert("RGBA")


def resize_rgba(image: Image.Image, size: int | tuple[int, int]) -> Image.Image:
    """Resize with premultiplied alpha, so that hidden colours do not bleed over edges.

    Args:
        size: side in pixels, or (width, height).
    """
    size = (size, size) if isinstance(size, int) else size
    rgba = np.asarray(image, dtype=np.float32) / 255
    rgba = np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], axis=-1)
    filters = Image.Resampling
    whole = image.width % size[0] == 0 and image.height % size[1] == 0
    kind = filters.BOX if whole else filters.LANCZOS
    planes = [np.asarray(Image.fromarray(rgba[..., k]).resize(size, kind)) for k in range(4)]
    alpha = planes[3].clip(0, 1)
    color = np.stack(planes[:3], axis=-1) / np.maximum(alpha, 1e-4)[..., None]
    out = np.concatenate([color.clip(0, 1), alpha[..., None]], axis=-1)
    return Image.fromarray((out * 255 + 0.5).astype(np.uint8), "RGBA")
