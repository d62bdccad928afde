"""Import of COLMAP captures: a folder per subject with pictures, masks and a sparse model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from captures.conventions import Convention, named_convention
from captures.imports.colmap_model import ColmapImage, ColmapModel, model_folder, read_model
from captures.imports.imported_set import (
    AXES,
    CaptureWriter,
    axes_from_up_and_front,
    begin_import,
    centred_square,
    check_test_subjects,
    closest_point,
    convention_about,
    describe_import,
    level_up,
    most_frontal,
    needed_tangent,
    seen_tangent,
)
from runtime.config import check_settings, setting
from runtime.errors import UserError
from runtime.files import inside
from runtime.picture_files import open_picture
from runtime.progress import progress

_VISIBLE = 0.95  # half width, world units, that a picture shows of the middle after fitting
_INSIDE = 0.9  # half width of the box that the sparse points fill after fitting


@dataclass
class ImportColmapConfig:
    """Convert COLMAP captures (pictures, masks, sparse model) to a multi-view set."""

    source: Path
    """A capture (images/, masks/ and a model in sparse/0, sparse or itself), or a folder of such
    captures, one for each subject."""
    output_dir: Path
    """The set to write."""
    images: str = "images"
    """Folder of the pictures in a capture."""
    masks: str = "masks"
    """Folder of the masks in a capture (white: subject; "<picture>.png" or the picture's name);
    not needed for pictures with alpha."""
    frontal: str = ""
    """Name of the picture that shows the face from the front: it becomes frame 0 and decides where
    the subjects look. Without it `front` must be given."""
    front: Literal["", "+x", "-x", "+y", "-y", "+z", "-z"] = ""
    """The model's direction in which the subjects look; the camera nearest to it is frame 0."""
    up: Literal["auto", "+x", "-x", "+y", "-y", "+z", "-z"] = "auto"
    """The model's direction that points up; "auto" takes the cameras to be held level."""
    fit: Literal["cameras", "points"] = "cameras"
    """What is put in the box: the point the cameras look at with what they see round it, or the
    sparse points."""
    scale: float = setting(0.0, at_least=0)
    """World units per model unit; 0 finds it by `fit`."""
    size: int = setting(512, at_least=1, at_most=8192)
    """Side of the pictures to write, in pixels; they are cut to the subject and centred."""
    test_subjects: int = 0
    """How many subjects, the last ones, are held out as test identities."""
    test_view_every: int = 6
    """One of so many views (never view 0) is held out for testing; 0 holds out none."""
    license: str = "unknown"
    """SPDX identifier of the pictures' licence."""


def import_colmap(config: ImportColmapConfig) -> None:
    """Writes the set and prints, for each subject, how it was placed.

    Raises:
        UserError: nothing to import, unreadable files, lenses that are not pinholes, pictures
            without alpha or mask, or no way to tell which side is the front.
    """
    if not config.frontal and not config.front:
        raise UserError(
            "name the picture that shows the face (--frontal NAME) or the model's direction in "
            "which the subjects look (--front)"
        )
    check_settings(config)
    captures = _captures(config.source)
    check_test_subjects(config.test_subjects, len(captures))
    begin_import(config, "studio import-colmap")
    n_frames = 0
    for name, (folder, place) in progress(captures.items(), desc="import", unit="subject"):
        try:
            n_frames = max(n_frames, _import_one(config, name, folder, read_model(place)))
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
    describe_import(
        config.output_dir,
        named_convention("house"),
        list(captures),
        n_frames,
        source="COLMAP",
        license=config.license,
        test_subjects=config.test_subjects,
        test_view_every=config.test_view_every,
    )


def _captures(source: Path) -> dict[str, tuple[Path, Path]]:
    """Name → (folder of the capture, folder of its model)."""
    if (place := model_folder(source)) is not None:
        return {source.resolve().name: (source, place)}
    folders = sorted(source.iterdir()) if source.is_dir() else []
    places = [(f, model_folder(f)) for f in folders if f.is_dir()]
    found = {f.name: (f, place) for f, place in places if place is not None}
    if not found:
        raise UserError(f"no COLMAP model (cameras.bin or .txt) in {source} or the folders in it")
    return found


def _import_one(config: ImportColmapConfig, name: str, folder: Path, model: ColmapModel) -> int:
    """Writes one subject; the number of its views."""
    convention = colmap_convention(config, model)
    poses = convention.to_house(np.stack([image.c2w for image in model.images]))
    first = (
        [image.name for image in model.images].index(config.frontal)
        if config.frontal
        else most_frontal(poses[:, :3, 3])
    )
    order = [first, *(i for i in range(len(poses)) if i != first)]
    tangent, seen = 0.0, []
    for i in order:
        camera = model.cameras[model.images[i].camera]
        rgba = _picture(config, folder, model.images[i], (camera.width, camera.height))
        pinhole = (camera.fx, camera.fy, camera.cx, camera.cy)
        tangent = max(tangent, needed_tangent(rgba, *pinhole))
        seen.append(seen_tangent(rgba, *pinhole))
    if tangent == 0.0:
        raise UserError("all pictures are empty: every pixel is transparent or masked out")
    # Where pictures cut the subject off, so must the set: beyond, it would be transparent. A few
    # badly framed ones don't make all others small.
    tangent = min(1.03 * tangent, float(np.quantile(seen, 0.1, method="lower")))
    target = named_convention("house")
    writer = CaptureWriter(config.output_dir / name, target)
    for i in order:
        camera = model.cameras[model.images[i].camera]
        rgba = _picture(config, folder, model.images[i], (camera.width, camera.height))
        pinhole = (camera.fx, camera.fy, camera.cx, camera.cy)
        square = centred_square(rgba, *pinhole, tangent, config.size)
        writer.add(square, poses[i], 0.5 / tangent, model.images[i].name)
    distance = np.linalg.norm(poses[:, :3, 3], axis=1)
    print(
        f"{name}: {len(order)} views, frame 0 is {model.images[first].name}, scale "
        f"{convention.scale:.4g}, cameras {distance.min():.2f} to {distance.max():.2f} world units "
        "from the middle"
    )
    return len(order)


def colmap_convention(config: ImportColmapConfig, model: ColmapModel) -> Convention:
    """Return where a model lies in our world.

    Raises:
        UserError: the frontal picture is not registered, or the place cannot be told.
    """
    c2w = np.stack([image.c2w for image in model.images])
    up = level_up(c2w) if config.up == "auto" else np.array(AXES[config.up], dtype=float)
    if config.fit == "points":
        if len(model.points) < 10:
            raise UserError("the model has fewer than 10 sparse points; use --fit cameras")
        centre = np.median(model.points, axis=0)
    else:
        centre = closest_point(c2w[:, :3, 3], c2w[:, :3, 2])
    if config.frontal:
        names = [image.name for image in model.images]
        if config.frontal not in names:
            raise UserError(
                f"no registered picture is called '{config.frontal}'; there are {names[0]} … "
                f"{names[-1]}"
            )
        front = c2w[names.index(config.frontal), :3, 3] - centre
    else:
        front = np.array(AXES[config.front], dtype=float)
    axes = axes_from_up_and_front(up, front)
    if config.fit == "points":
        half = float(np.quantile(np.abs((model.points - centre) @ axes.T).max(1), 0.98))
        scale = _INSIDE / half if half > 0 else 0.0
    else:
        cameras = [model.cameras[image.camera] for image in model.images]
        tangents = [0.5 * min(c.width / c.fx, c.height / c.fy) for c in cameras]
        distance = np.linalg.norm(c2w[:, :3, 3] - centre, axis=1)
        scale = _VISIBLE / float(np.median(distance * tangents))
    scale = config.scale or scale
    if not (np.isfinite(scale) and scale > 0):
        raise UserError("the size cannot be told from the model; give --scale")
    return convention_about(centre, axes, scale, "opencv")


def _picture(
    config: ImportColmapConfig, folder: Path, image: ColmapImage, size: tuple[int, int]
) -> np.ndarray:
    """RGBA uint8 [H, W, 4] of a registered picture, alpha from itself or from its mask."""
    path = inside(folder / config.images, image.name)
    picture = open_picture(path)
    if picture.size != size:
        raise UserError(
            f"{path} has {picture.width}×{picture.height} pixels but its camera {size[0]}×"
            f"{size[1]}; import the pictures the model was made from"
        )
    if "A" in picture.getbands() or "transparency" in picture.info:
        return np.asarray(picture.convert("RGBA"))
    masks = folder / config.masks
    names = (f"{image.name}.png", image.name, str(Path(image.name).with_suffix(".png")))
    for mask_path in (inside(masks, name) for name in names):
        if mask_path.exists():
            mask = open_picture(mask_path, "mask").convert("L")
            if mask.size != size:
                raise UserError(f"{mask_path} and its picture differ in size")
            picture = picture.convert("RGBA")
            picture.putalpha(mask)
            return np.asarray(picture)
    raise UserError(
        f"{path} has no alpha channel and no mask {masks / names[0]}; cut the background out "
        "or write masks"
    )
