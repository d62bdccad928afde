"""The content of a set's folders, read tolerantly: a broken file is noted, not raised."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from captures.camera_files import CameraFormat, StoredCamera, read_camera
from captures.conventions import Convention, named_convention
from captures.description import read_description
from captures.multiview import FRAME_PATTERN, IMAGE_NAME, METADATA_NAME
from captures.rgba import PictureFormat
from runtime.errors import UserError
from runtime.picture_files import open_picture

_PNG_END = b"IEND\xaeB`\x82"


@dataclass
class View:
    """One frame's two files.

    Attributes:
        picture_fault, camera_fault: why the picture or the camera cannot be used; "missing" when
            the file is not there.
        size: width and height of the picture in pixels.
        has_alpha: whether its format holds alpha.
        length: of the picture file in bytes.
        camera: None where it cannot be read.
    """

    frame: int
    picture_fault: str | None = None
    camera_fault: str | None = None
    size: tuple[int, int] = (0, 0)
    has_alpha: bool = True
    length: int = 0
    camera: StoredCamera | None = None

    @property
    def usable(self) -> bool:
        return not self.picture_fault and not self.camera_fault and self.has_alpha


@dataclass
class Subject:
    """A subject's folder and the frames in it that are not excluded, ascending."""

    name: str
    folder: Path
    views: dict[int, View] = field(default_factory=dict)

    def picture_path(self, frame: int) -> Path:
        return self.folder / IMAGE_NAME.format(frame)


@dataclass
class Reading:
    """The conventions under which the set is read at present.

    Attributes:
        description: content of ``dataset.json``; empty without one.
        fault: why ``dataset.json`` cannot be used, or None.
    """

    description: dict[str, Any]
    convention: Convention
    cameras: CameraFormat
    pictures: PictureFormat
    fault: str | None = None

    def excluded(self, name: str) -> set[int] | None:
        """Frames left out; None for the whole subject."""
        stated = self.description.get("objects", {}).get(name, {}).get("exclude", [])
        return None if stated == "all" else set(stated)


def read_conventions(root: Path, convention: str | None) -> Reading:
    """Return how ``root`` is to be read: by its ``dataset.json``, else by the named convention.

    A folder with neither is taken for the house's convention until the search knows better.
    """
    named = named_convention(convention or "house")
    fallback = Reading({}, named, CameraFormat(), PictureFormat())
    if not (root / "dataset.json").exists():
        fallback.fault = None if convention else "there is no dataset.json"
        return fallback
    try:
        return Reading(*read_description(root / "dataset.json"))
    except UserError as error:
        fallback.fault = str(error)
        return fallback


def find_folders(root: Path) -> list[str]:
    """Names of the folders that hold at least one file of the format.

    Raises:
        UserError: there are none.
    """
    if not root.is_dir():
        raise UserError(f"no multi-view set at {root}: the folder does not exist")
    names = sorted(
        folder.name
        for folder in root.iterdir()
        if folder.is_dir() and any(FRAME_PATTERN.fullmatch(p.name) for p in folder.iterdir())
    )
    if not names:
        raise UserError(
            f"{root} holds no subjects: expected folders with {IMAGE_NAME.format(0)} and "
            f"{METADATA_NAME.format(0)}"
        )
    return names


def spread(items: list[Any], count: int) -> list[Any]:
    """``count`` of the items, evenly spread and with the first; all for 0."""
    if count <= 0 or len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def read_subject(folder: Path, excluded: set[int]) -> Subject:
    """Look at every file of one subject: pictures' headers and ends, cameras in full."""
    matches = (FRAME_PATTERN.fullmatch(p.name) for p in folder.iterdir())
    frames = sorted({int(m.group(1)) for m in matches if m} - excluded)
    subject = Subject(folder.name, folder)
    for frame in frames:
        view = View(frame)
        _look_at_picture(folder / IMAGE_NAME.format(frame), view)
        path = folder / METADATA_NAME.format(frame)
        if not path.exists():
            view.camera_fault = "missing"
        else:
            try:
                view.camera = read_camera(path)
            except UserError as error:
                view.camera_fault = str(error).replace(str(path), "").strip(" :")
        subject.views[frame] = view
    return subject


def _look_at_picture(path: Path, view: View) -> None:
    """Header and end only: decoding every picture of a large set would take hours."""
    if not path.exists():
        view.picture_fault = "missing"
        return
    view.length = path.stat().st_size
    try:
        image = open_picture(path, decode=False)
    except UserError as error:
        view.picture_fault = str(error).replace(str(path), "it", 1)
        return
    view.size, view.has_alpha, kind = image.size, "A" in image.getbands(), image.format
    if kind == "PNG":
        with open(path, "rb") as handle:
            handle.seek(max(0, view.length - 64))
            if _PNG_END not in handle.read():
                view.picture_fault = "truncated: the file ends before the picture does"
