"""The multi-view folder format: pictures of subjects with their cameras.

Legend: N views, H W picture size.

::

    <set>/dataset.json                           conventions, splits, attributes, licence
    <set>/<object>/img_proc_fg_000000.png        RGBA, straight alpha; frame 0 is the portrait
    <set>/<object>/metadata_000000.json          cameras[0]: resolution, focal_length,
                                                 sensor_width, transformation (c2w, file axes)

The layout is the one of the RodinHD release; ``dataset.json`` adds what it leaves to guess. A
folder without it is read under a named convention (:mod:`captures.conventions`).
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from captures.camera_files import CameraFormat, read_camera
from captures.cameras import Cameras
from captures.conventions import CONVENTIONS, Convention, named_convention
from captures.description import read_description
from captures.photographs import Portrait, portrait_numbers, read_portrait
from captures.rgba import PictureFormat, resize_rgba
from captures.rgba import read_rgba as read_rgba
from runtime.errors import UserError
from runtime.files import atomic_path, read_text, write_json

IMAGE_NAME = "img_proc_fg_{:06d}.png"
METADATA_NAME = "metadata_{:06d}.json"
FRAME_PATTERN = re.compile(r"(?:img_proc_fg_|metadata_)(\d{6})\.(?:png|json)")


@dataclass(frozen=True)
class Views:
    """Pictures of one subject.

    Attributes:
        images: RGBA, straight alpha, sRGB, uint8 [N, H, W, 4].
        cameras: N cameras in house convention.
        frames: frame number of each view.
    """

    images: np.ndarray
    cameras: Cameras
    frames: list[int]

    def composited(self, background: float = 1.0) -> torch.Tensor:
        """Pictures over a grey background, fp32 [N, H, W, 3] in [0, 1]."""
        return composite_rgba(torch.from_numpy(self.images), background)


def composite_rgba(images: torch.Tensor, background: float | torch.Tensor = 1.0) -> torch.Tensor:
    """RGBA uint8 [..., 4] over a background (grey level or [..., 3]) → fp32 [..., 3]."""
    rgba = images.float() / 255
    alpha = rgba[..., 3:]
    return rgba[..., :3] * alpha + (1 - alpha) * background


class MultiViewSet:
    """Reads a multi-view set.

    Args:
        root: folder of the set.
        convention: named convention; only for a folder without ``dataset.json``.

    Raises:
        UserError: if the folder is missing or empty, or its conventions are unknown.
    """

    def __init__(self, root: Path | str, convention: str | None = None):
        self.root = Path(root)
        if self.root.name == "dataset.json":
            self.root = self.root.parent
        if not self.root.is_dir():
            raise UserError(f"no multi-view set at {self.root}: the folder does not exist")
        self._description: dict[str, Any] = {}
        self.camera_format = CameraFormat()
        self.pictures = PictureFormat()
        description = self.root / "dataset.json"
        if description.exists():
            if convention is not None:
                raise UserError(
                    f"{description} states the set's convention; remove --convention {convention}"
                )
            self._description, self.convention, self.camera_format, self.pictures = (
                read_description(description)
            )
        elif convention is None:
            raise UserError(
                f"{self.root} has no dataset.json; name its camera convention with --convention "
                f"({', '.join(CONVENTIONS)})"
            )
        else:
            self.convention = named_convention(convention)
        self.names = sorted(
            folder.name
            for folder in self.root.iterdir()
            if folder.is_dir()
            and self._objects.get(folder.name, {}).get("exclude") != "all"
            and self._has_portrait(folder)
        )
        if not self.names:
            raise UserError(
                f"{self.root} holds no subjects: expected folders with {IMAGE_NAME.format(0)} and "
                f"{METADATA_NAME.format(0)}"
            )

    def _has_portrait(self, folder: Path) -> bool:
        """Whether a folder is a subject's; one with views but no portrait is not passed over."""
        name = METADATA_NAME.format(self.pictures.portrait_frame)
        if (folder / name).exists():
            return True
        if any(FRAME_PATTERN.fullmatch(path.name) for path in folder.iterdir()):
            raise UserError(
                f"{folder} has views but no {name} for its portrait; put the file back, or leave "
                f'the subject out: "exclude": "all" under objects.{folder.name} of dataset.json '
                "(`triavatar doctor --fix` does it)."
            )
        return False

    @property
    def identity_splits(self) -> dict[str, list[str]] | None:
        """Subjects by split as ``dataset.json`` states them; None where it does not."""
        splits = self._description.get("splits", {}).get("identities")
        return None if splits is None else {key: list(names) for key, names in splits.items()}

    def split(self, identities: str = "all") -> list[str]:
        """Names of the subjects of one split ("train", "validation", "test" or "all").

        Without stated splits every subject belongs to "train".
        """
        if identities == "all":
            return list(self.names)
        splits = self._description.get("splits", {}).get("identities")
        if splits is None:
            return list(self.names) if identities == "train" else []
        chosen = set(splits.get(identities, []))
        return [name for name in self.names if name in chosen]

    def frames(self, name: str) -> list[int]:
        """All frame numbers of a subject, ascending.

        A picture or its metadata is enough to be counted, so that a lost half is noticed.
        """
        self._require(name)
        matches = (FRAME_PATTERN.fullmatch(p.name) for p in (self.root / name).iterdir())
        excluded = self.excluded(name)
        return sorted({int(m.group(1)) for m in matches if m} - excluded)

    def excluded(self, name: str) -> set[int]:
        """Frames of a subject that ``dataset.json`` leaves out."""
        return set(self._objects.get(name, {}).get("exclude", []))

    def split_views(self, views: str, name: str) -> list[int]:
        """Frames of one subject in a split ("train", "validation", "test" or "all").

        Without stated splits, every eighth frame (7, 15, …) is "test" and the rest is "train".
        """
        frames = self.frames(name)
        if views == "all":
            return frames
        splits = self._description.get("splits", {}).get("views")
        if splits is None:
            held_out = {frame for index, frame in enumerate(frames) if index % 8 == 7}
            chosen = {"train": set(frames) - held_out, "test": held_out}.get(views, set())
        else:
            # A subject may have fewer views than others, but a gap among its own is a lost file.
            listed = sorted(set(splits.get(views, [])) - self.excluded(name))
            return [f for f in listed if frames and f <= frames[-1]]
        return [frame for frame in frames if frame in chosen]

    def attributes(self, name: str) -> dict[str, Any]:
        """Attribute labels of a subject; empty where the set has none."""
        return self._objects.get(name, {}).get("attributes", {})

    def origin(self, name: str) -> tuple[int, ...] | None:
        """Seed, index and variant that the studio drew an object from; None for other objects."""
        stated = self._objects.get(name, {}).get("seed")
        return tuple(stated) if isinstance(stated, list) and len(stated) == 3 else None

    @property
    def _objects(self) -> dict[str, Any]:
        return self._description.get("objects", {})

    def load(self, name: str, frames: list[int] | None = None, size: int | None = None) -> Views:
        """Pictures and cameras of one subject.

        Args:
            frames: which; all by default.
            size: resize pictures to this many pixels along each side (area filter).

        Raises:
            UserError: names the file that is missing, unreadable or different in size.
        """
        self._require(name)
        frames = self.frames(name) if frames is None else list(frames)
        if not frames:
            raise UserError(f"{self.root / name} has no pictures for the views asked for")
        images, cameras = [], []
        for frame in frames:
            image = self.pictures.read(self.root / name / IMAGE_NAME.format(frame))
            camera = self._camera(self.root / name / METADATA_NAME.format(frame), image.size)
            if size is not None and image.size != (size, size):
                image = resize_rgba(image, size)
                camera = camera.scaled_to(size, size)
            if images and images[0].shape[:2] != (image.height, image.width):
                raise UserError(
                    f"{self.root / name / IMAGE_NAME.format(frame)} is {image.width}×"
                    f"{image.height} but earlier frames are {images[0].shape[1]}×"
                    f"{images[0].shape[0]}; all pictures of a subject must share one size"
                )
            images.append(np.asarray(image))
            cameras.append(camera)
        merged = Cameras(
            *(torch.cat([getattr(c, k) for c in cameras]) for k in ("c2w", "fx", "fy", "cx", "cy")),
            cameras[0].width,
            cameras[0].height,
        )
        return Views(np.stack(images), merged, frames)

    def portrait_camera(self, name: str) -> Cameras:
        """Camera of the frontal portrait (N = 1)."""
        return self.load(name, [self.pictures.portrait_frame]).cameras

    def portrait_path(self, name: str) -> Path:
        """File of the frontal portrait, frame 0 unless stated; ``pictures`` says how to read it."""
        self._require(name)
        return self.root / name / IMAGE_NAME.format(self.pictures.portrait_frame)

    def portrait(self, name: str, size: int | None = None) -> np.ndarray:
        """The frontal portrait, frame 0 unless stated: RGBA uint8 [H, W, 4]."""
        image = self.pictures.read(self.portrait_path(name))
        if size is not None and image.size != (size, size):
            image = resize_rgba(image, size)
        return np.asarray(image)

    def portraits(
        self, name: str, numbers: list[int] | None = None, size: int | None = None
    ) -> list[Portrait]:
        """Portraits of a subject as photographs are (:mod:`captures.photographs`).

        Args:
            numbers: which; all by default, and none where a set has none.
            size: resize pictures to this many pixels along each side (area filter).
        """
        self._require(name)
        folder = self.root / name
        numbers = portrait_numbers(folder) if numbers is None else numbers
        return [read_portrait(folder, number, size) for number in numbers]

    def _require(self, name: str) -> None:
        if name not in self.names:
            raise UserError(f"{self.root} has no subject '{name}'")

    def _camera(self, path: Path, image_size: tuple[int, int]) -> Cameras:
        stored = read_camera(path)
        try:
            c2w = self.camera_format.c2w(stored.transformation)
        except np.linalg.LinAlgError:
            raise UserError(f"{path}: the world-to-camera matrix has no inverse") from None
        width, height = stored.width, stored.height
        if self.camera_format.resolution == "picture":
            width, height = image_size
        focal = self.camera_format.focal_widths(stored) * width
        if not 0 < focal < 1e9:
            raise UserError(f"{path}: transformation must be a finite 4×4 matrix, focal > 0")
        if (width, height) != image_size:
            raise UserError(
                f"{path} states {width}×{height} pixels but its picture has "
                f"{image_size[0]}×{image_size[1]}"
            )
        rigid = self.convention.to_house(c2w)
        rotation = rigid[:3, :3]
        if np.linalg.det(rotation) < 0 or np.abs(rotation @ rotation.T - np.eye(3)).max() > 0.01:
            raise UserError(
                f"{path}: transformation is no rotation under the set's conventions (it mirrors or "
                "stretches); triavatar doctor finds the right ones"
            )
        house = torch.from_numpy(rigid[None]).float()
        f, cx, cy = (torch.tensor([v]) for v in (focal, width / 2, height / 2))
        return Cameras(house, f, f, cx, cy, width, height)


def write_view(
    folder: Path,
    frame: int,
    image: np.ndarray,
    cameras: Cameras,
    index: int,
    convention: Convention,
    sensor_width: float = 36.0,
) -> None:
    """Write one picture and its metadata; the metadata last, so that it marks completion.

    Args:
        folder: the subject's folder; made when missing.
        image: RGBA uint8 [H, W, 4], straight alpha.
        cameras, index: the camera in house convention; square pixels, centred.
        convention: of the file.
        sensor_width: states the unit of the focal length; millimetres by custom.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / IMAGE_NAME.format(frame)) as temporary:
        # A renderer's pictures are flat or noisy: runs compress as well as strings, 15 × faster
        # than the best setting, which makes files 7 % smaller.
        Image.fromarray(image, "RGBA").save(
            temporary, format="PNG", compress_level=1, compress_type=zlib.Z_RLE
        )
    c2w = convention.from_house(cameras.c2w[index].double().numpy())
    focal = float(cameras.fx[index]) / cameras.width * sensor_width
    entry = {
        "resolution": [cameras.width, cameras.height],
        "focal_length": round(focal, 6),
        "sensor_width": sensor_width,
        "transformation": c2w.round(8).tolist(),
    }
    write_json(folder / METADATA_NAME.format(frame), {"cameras": [entry]})


def select_names(
    default: list[str],
    txt_file: Path | None = None,
    start_idx: int = 0,
    end_idx: int | None = None,
    known: list[str] | None = None,
) -> list[str]:
    """The slice ``[start_idx:end_idx]`` of the subjects listed in ``txt_file``.

    Args:
        default: the list to slice without a ``txt_file``.
        txt_file: one name per line, in the order to use.
        known: names a ``txt_file`` may hold; ``default`` without.

    Raises:
        UserError: if a listed name is unknown or nothing is left.
    """
    chosen = default
    if txt_file is not None:
        chosen = [line.strip() for line in read_text(txt_file).splitlines() if line.strip()]
        unknown = [name for name in chosen if name not in set(known or default)]
        if unknown:
            listed = ", ".join(f"{name!r:.80}" for name in unknown[:5])
            raise UserError(f"{txt_file} names subjects that are not there: {listed}")
    selected = chosen[start_idx:end_idx]
    if not selected:
        raise UserError(
            f"no subjects left: start_idx {start_idx} and end_idx {end_idx} select none of "
            f"{len(chosen)}"
        )
    return selected
