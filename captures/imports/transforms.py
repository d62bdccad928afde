"""Import of NeRF-style captures: a folder per object with `transforms.json` and RGBA pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from captures.conventions import Convention, named_convention
from captures.imports.imported_set import (
    AXES,
    CaptureWriter,
    axes_from_up_and_front,
    begin_import,
    check_test_subjects,
    convention_about,
    describe_import,
    most_frontal,
    rigid_camera,
)
from captures.multiview import read_rgba
from runtime.config import check_settings, setting
from runtime.described import Described, Matrix, Name, Number, read_described
from runtime.errors import UserError
from runtime.files import inside
from runtime.progress import progress

SPLITS = ("train", "validation", "test")


@dataclass
class ImportTransformsConfig:
    """Convert folders with transforms.json (NeRF, instant-ngp, nerfstudio) to a multi-view set."""

    source: Path
    """A folder with transforms.json (or transforms_train.json, …_val and …_test, whose splits are
    kept), such a file, or a folder of such folders, one for each object."""
    output_dir: Path
    """The set to write."""
    camera_axes: Literal["opengl", "blender", "opencv"] = "opengl"
    """Axes of the file's cameras; NeRF's transforms.json has OpenGL's."""
    up: Literal["+x", "-x", "+y", "-y", "+z", "-z"] = "+z"
    """The file's direction that points up."""
    front: Literal["+x", "-x", "+y", "-y", "+z", "-z"] = "-y"
    """The file's direction in which the subjects look."""
    scale: float = setting(1.0, above=0)
    """World units per file unit; the subject must fit the box [-1, 1]³."""
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """The file's point that becomes the origin, in file units."""
    test_subjects: int = 0
    """How many objects, the last ones, are held out as test identities."""
    test_view_every: int = 6
    """One of so many views (never view 0) is held out for testing; 0 holds out none."""
    license: str = "unknown"
    """SPDX identifier of the pictures' licence."""


def import_convention(config: ImportTransformsConfig) -> Convention:
    """The convention that `config` states.

    Raises:
        UserError: up and front are parallel, or the scale is not positive.
    """
    up, front = (np.array(AXES[name], dtype=float) for name in (config.up, config.front))
    if abs(up @ front) > 0.5:
        raise UserError(f"up '{config.up}' and front '{config.front}' are parallel")
    axes = axes_from_up_and_front(up, front)
    return convention_about(np.array(config.centre), axes, config.scale, config.camera_axes)


def import_transforms(config: ImportTransformsConfig) -> None:
    """Writes the set; the most frontal view of every object becomes frame 0.

    Raises:
        UserError: nothing to import, unreadable files, or cameras the format cannot hold.
    """
    check_settings(config)
    convention = import_convention(config)
    if config.source.is_file():
        config.source = config.source.parent
    folders = _objects(config.source)
    target = named_convention("house")
    check_test_subjects(config.test_subjects, len(folders))
    # All cameras are read before anything is written.
    objects = {
        name: [
            (split, *frame)
            for split, file in files.items()
            for frame in _frames(file, config.source, convention)
        ]
        for name, files in folders.items()
    }
    begin_import(config, "studio import-transforms")
    for name, frames in progress(objects.items(), desc="import", unit="object"):
        frames.sort(key=lambda frame: (SPLITS.index(frame[0]), frame[1]))
        known = [frame for frame in frames if frame[0] == frames[0][0]]
        front = frames.pop(most_frontal(np.stack([frame[3][:3, 3] for frame in known])))
        frames.insert(0, front)
        writer = CaptureWriter(config.output_dir / name, target)
        for _, _, path, c2w, focal in frames:
            writer.add(np.asarray(read_rgba(path)), c2w, focal, path)
    describe_import(
        config.output_dir,
        target,
        list(folders),
        max(map(len, objects.values())),
        source="transforms.json",
        license=config.license,
        test_subjects=config.test_subjects,
        test_view_every=config.test_view_every,
        views=_own_splits([[frame[0] for frame in frames] for frames in objects.values()]),
    )


def _own_splits(objects: list[list[str]]) -> dict[str, list[int]] | None:
    """Frames of each split, where the files state one and all objects agree."""
    first = objects[0]
    if any(splits != first for splits in objects) or set(first) == {"train"}:
        return None
    return {split: [i for i, own in enumerate(first) if own == split] for split in SPLITS}


def _files(folder: Path) -> dict[str, Path]:
    """Split → file of cameras; one file is all of "train"."""
    if (folder / "transforms.json").exists():
        return {"train": folder / "transforms.json"}
    named = zip(SPLITS, ("train", "val", "test"), strict=True)
    files = {split: folder / f"transforms_{name}.json" for split, name in named}
    return {split: file for split, file in files.items() if file.exists()}


def _objects(source: Path) -> dict[str, dict[str, Path]]:
    """Name → files of cameras, of every object."""
    if _files(source):
        name = source.resolve().name
        if not name:
            raise UserError(f"{source} has no name to give the subject; give the folder of objects")
        return {name: _files(source)}
    folders = sorted(p for p in source.glob("*") if p.is_dir())
    found = {folder.name: files for folder in folders if (files := _files(folder))}
    if not found:
        raise UserError(f"no transforms.json in {source} or in the folders directly in it")
    return found


class _Lens(Described):
    """Settings of a lens; a frame's own win over the file's."""

    fl_x: Number | None = None
    fl_y: Number | None = None
    cx: Number | None = None
    cy: Number | None = None
    w: Number | None = None
    h: Number | None = None
    camera_angle_x: Number | None = None
    k1: Number | None = None
    k2: Number | None = None
    k3: Number | None = None
    k4: Number | None = None
    p1: Number | None = None
    p2: Number | None = None


class _Frame(_Lens):
    file_path: Name
    transform_matrix: Matrix


class Transforms(_Lens):
    """``transforms.json``."""

    frames: Annotated[list[_Frame], Field(min_length=1)]


Frame = tuple[str, Path, np.ndarray, float]  # file name, picture, c2w in our world, focal / width


def _frames(path: Path, source: Path, convention: Convention) -> list[Frame]:
    """The frames of one object; their pictures lie below ``source``."""
    content = read_described(Transforms, path)
    shared = content.model_dump(include=set(_Lens.model_fields), exclude_none=True)
    out: list[Frame] = []
    for number, frame in enumerate(content.frames):
        where = f"{path}: frames[{number}]"
        name = frame.file_path if Path(frame.file_path).suffix else f"{frame.file_path}.png"
        picture = inside(source, path.parent.relative_to(source) / name)
        own = frame.model_dump(include=set(_Lens.model_fields), exclude_none=True)
        focal = _focal(where, {**shared, **own})
        c2w = rigid_camera(np.array(frame.transform_matrix), where)
        out.append((frame.file_path, picture, convention.to_house(c2w), focal))
    return out


def _focal(where: str, values: dict[str, float]) -> float:
    """Focal length over picture width; refuses what a centred pinhole cannot express."""
    for key in ("k1", "k2", "k3", "k4", "p1", "p2"):
        if abs(values.get(key, 0.0)) > 1e-6:
            raise UserError(f"{where} has lens distortion ({key}); undistort the pictures first")
    if "fl_x" not in values:
        angle = values.get("camera_angle_x")
        if angle is None or not 0.001 < angle < 3.14:
            raise UserError(
                f"{where}: camera_angle_x is {angle} but must be the horizontal field of view in "
                "radians, between 0 and pi (or give fl_x, w and h)"
            )
        return 0.5 / math.tan(0.5 * angle)
    focal, width, height = (values.get(key, 0.0) for key in ("fl_x", "w", "h"))
    if not (1 <= min(width, height) <= max(width, height) <= 2**16):
        raise UserError(f"{where}: fl_x needs w and h, the picture's size in pixels")
    if not 1e-3 < focal / width < 1e3:
        raise UserError(f"{where}: fl_x is {focal} but must be a focal length in pixels")
    for key, middle in (("cx", width / 2), ("cy", height / 2)):
        if abs(values.get(key, middle) - middle) > 0.01 * width:
            raise UserError(f"{where}: {key} is off the picture's middle; crop the pictures")
    if abs(values.get("fl_y", focal) / focal - 1) > 0.01:
        raise UserError(f"{where}: fl_x and fl_y differ; resize to square pixels")
    return focal / width
