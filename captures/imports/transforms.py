"""Import of NeRF-style captures: a folder per object with `transforms.json` and RGBA pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from captures.conventions import Convention, named_convention
from captures.imports.imported_set import (
    AXES,
    axes_from_up_and_front,
    check_test_subjects,
    convention_about,
    describe_import,
    most_frontal,
    write_captured_view,
)
from captures.multiview import read_rgba
from runtime.errors import UserError
from runtime.files import read_json
from runtime.progress import progress


@dataclass
class ImportTransformsConfig:
    """Convert folders with transforms.json (NeRF, instant-ngp, nerfstudio) to a multi-view set."""

    source: Path
    """A folder with transforms.json, or a folder of such folders, one for each object."""
    output_dir: Path
    """The set to write."""
    camera_axes: Literal["opengl", "blender", "opencv"] = "opengl"
    """Axes of the file's cameras; NeRF's transforms.json has OpenGL's."""
    up: Literal["+x", "-x", "+y", "-y", "+z", "-z"] = "+z"
    """The file's direction that points up."""
    front: Literal["+x", "-x", "+y", "-y", "+z", "-z"] = "-y"
    """The file's direction in which the subjects look."""
    scale: float = 1.0
    """House units per file unit; the subject must fit the box [-1, 1]³."""
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """The file's point that becomes the origin, in file units."""
    test_subjects: int = 0
    """How many objects, the last ones, are held out as test identities."""
    test_view_every: int = 6
    """Every so-manieth view (never view 0) is held out for testing; 0 holds out none."""
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
    if not config.scale > 0:
        raise UserError(f"scale is {config.scale}; it must be positive")
    axes = axes_from_up_and_front(up, front)
    return convention_about(np.array(config.centre), axes, config.scale, config.camera_axes)


def import_transforms(config: ImportTransformsConfig) -> None:
    """Writes the set; the most frontal view of every object becomes frame 0.

    Raises:
        UserError: nothing to import, unreadable files, or cameras the format cannot hold.
    """
    convention = import_convention(config)
    folders = _objects(config.source)
    target = named_convention("house")
    check_test_subjects(config.test_subjects, len(folders))
    n_frames = 0
    for name, folder in progress(folders.items(), desc="import", unit="object"):
        frames = _frames(folder / "transforms.json", convention)
        frames.sort(key=lambda frame: frame[0])
        n_frames = max(n_frames, len(frames))
        front = frames[most_frontal(np.stack([frame[2][:3, 3] for frame in frames]))]
        rest = list(frames)
        rest.remove(front)
        for index, (_, path, c2w, focal) in enumerate([front, *rest]):
            image = np.asarray(read_rgba(path))
            write_captured_view(config.output_dir / name, index, image, c2w, focal, target)
    describe_import(
        config.output_dir,
        target,
        list(folders),
        n_frames,
        source="transforms.json",
        license=config.license,
        test_subjects=config.test_subjects,
        test_view_every=config.test_view_every,
    )


def _objects(source: Path) -> dict[str, Path]:
    if (source / "transforms.json").exists():
        return {source.name: source}
    found = {p.parent.name: p.parent for p in sorted(source.glob("*/transforms.json"))}
    if not found:
        raise UserError(f"no transforms.json in {source} or in the folders directly in it")
    return found


Frame = tuple[str, Path, np.ndarray, float]  # file name, picture, house c2w, focal / width


def _frames(path: Path, convention: Convention) -> list[Frame]:
    content = read_json(path)
    out: list[Frame] = []
    try:
        for frame in content["frames"]:
            c2w = np.array(frame["transform_matrix"], dtype=np.float64)
            if c2w.shape != (4, 4) or not np.isfinite(c2w).all():
                raise UserError(f"{path}: a transform_matrix is not a finite 4×4 matrix")
            picture = path.parent / frame["file_path"]
            if not picture.suffix:
                picture = picture.with_suffix(".png")
            focal = _focal(path, {**content, **frame})
            out.append((frame["file_path"], picture, convention.to_house(c2w), focal))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} lacks or garbles {error}; it must be NeRF's format") from error
    if not out:
        raise UserError(f"{path} has no frames")
    return out


def _focal(path: Path, values: dict[str, Any]) -> float:
    """Focal length over picture width; refuses what a centred pinhole cannot express."""
    for key in ("k1", "k2", "k3", "k4", "p1", "p2"):
        if abs(values.get(key, 0.0)) > 1e-6:
            raise UserError(f"{path} has lens distortion ({key}); undistort the pictures first")
    if "fl_x" in values:
        width, height = values["w"], values["h"]
        for key, middle in (("cx", width / 2), ("cy", height / 2)):
            if abs(values.get(key, middle) - middle) > 0.01 * width:
                raise UserError(f"{path}: {key} is off the picture's middle; crop the pictures")
        if abs(values.get("fl_y", values["fl_x"]) / values["fl_x"] - 1) > 0.01:
            raise UserError(f"{path}: fl_x and fl_y differ; resize to square pixels")
        return values["fl_x"] / width
    return 0.5 / math.tan(0.5 * values["camera_angle_x"])
