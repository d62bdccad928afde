"""``triavatar portrait``: photographs to portraits framed as in a set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from photos.portraits import PortraitMaker, PortraitSettings
from runtime.config import own_first
from runtime.errors import UserError
from runtime.files import atomic_path
from runtime.picture_files import name_pictures, open_picture, read_picture
from runtime.progress import progress

SOFTWARE = "triavatar portrait"
"""What portraits bear, so that no other picture of their name is overwritten."""


@own_first
@dataclass
class PortraitConfig(PortraitSettings):
    """Find the face in photographs, frame it as in a set and cut it out."""

    photos: tuple[Path, ...] = ()
    """Photographs, or folders of them."""
    output_dir: Path = Path("portraits")
    """Folder for <name>.png: RGBA, straight alpha."""


def _made_here(path: Path) -> bool:
    """Whether a picture bears the mark of :func:`make_portraits`."""
    try:
        return open_picture(path, decode=False).info.get("Software") == SOFTWARE
    except UserError:
        return False


def make_portraits(config: PortraitConfig) -> None:
    """Write a portrait of every photograph; those refused don't keep the others from it.

    Raises:
        UserError: photographs are unreadable or refused, with the reason of each.
    """
    photos = name_pictures(config.photos)
    if not photos:
        raise UserError("portrait needs photographs: files or folders")
    for name in photos:
        target = config.output_dir / f"{name}.png"
        if target.exists() and not _made_here(target):
            raise UserError(
                f"{target} is no portrait that this command made; it would be overwritten: choose "
                "another output_dir"
            )
    maker = PortraitMaker(config)
    refused = []
    for name, file in progress(photos.items(), desc="portrait", unit="photo"):
        try:
            rgba = maker(read_picture(file, "photograph"), str(file))
        except UserError as error:
            refused.append(str(error))
            continue
        with atomic_path(config.output_dir / f"{name}.png") as temporary:
            note = PngInfo()
            note.add_text("Software", SOFTWARE)
            Image.fromarray(rgba, "RGBA").save(temporary, format="PNG", pnginfo=note)
    print(f"{len(photos) - len(refused)} of {len(photos)} portraits are in {config.output_dir}")
    if refused:
        raise UserError("\n       ".join(refused))
