"""What is known of one person, whatever form it came in: pictures, and cameras where there are any.

Legend: N pictures, S side of each in pixels.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np

from captures.cameras import Cameras
from captures.multiview import MultiViewSet
from photos.matte import with_alpha
from photos.prepare import Picture, Preparer, check_portrait, read_portrait
from runtime.config import setting
from runtime.errors import UserError
from runtime.files import check_file
from runtime.picture_files import list_pictures, name_pictures
from runtime.progress import progress
from triavatar.fit.video import VIDEO_SUFFIXES, video_frames

MESH_SUFFIXES = (".glb", ".gltf", ".obj", ".ply")
Direction = Literal["+x", "-x", "+y", "-y", "+z", "-z"]


@dataclass
class CaptureSettings:
    """Settings of reading what is known of a person."""

    frames: int = setting(8, at_least=2, at_most=1000)
    """Pictures taken from a video, spread over its length."""
    views: int = setting(24, at_least=4, at_most=1000)
    """Pictures drawn of a mesh, from all around."""
    most: int = setting(48, at_least=2, at_most=1000)
    """Pictures used of a capture that has more; they are spread over it."""
    up: Direction = "+y"
    """A mesh's direction that points up."""
    front: Direction = "+z"
    """The direction in which a mesh, or the person of a COLMAP model, looks."""
    camera_up: Direction = "+z"
    """The direction that points up in transforms.json."""
    camera_front: Direction = "-y"
    """The direction in which the person of transforms.json looks."""
    camera_scale: float = setting(1.0, above=0)
    """World units per unit of transforms.json; a bust fills the box [-1, 1]³."""
    frontal: str = ""
    """COLMAP: name of the picture that shows the face; found by its face without."""


@dataclass(frozen=True)
class Captured:
    """Pictures of one person.

    Attributes:
        pictures: N times uint8 [S, S, 4], straight alpha; one from the front is the first where
            the cameras are known.
        cameras: N cameras, or None where nothing is known of them.
        names: what each picture is called.
        kind: how it was read: pictures, video, mesh, subject, transforms or colmap.
        left_out: reasons of pictures that could not be used.
    """

    pictures: list[np.ndarray]
    cameras: Cameras | None
    names: list[str]
    kind: str
    left_out: list[str] = field(default_factory=list)


def kind_of(paths: Sequence[Path]) -> str:
    """Return what files and folders are: "pictures", "video", "mesh", "subject", ….

    Raises:
        UserError: there is nothing, or they don't go together.
    """
    if not paths:
        raise UserError(
            "fit needs pictures of one person, a folder of them, a video or a mesh "
            "(triavatar fit FOLDER)."
        )
    for path in paths:
        if not path.exists():
            raise UserError(f"there is no {path}; check the path.")
    kinds = [_kind_of_one(path) for path in paths]
    if len(paths) > 1 and set(kinds) != {"pictures"}:
        odd = next(p for p, kind in zip(paths, kinds, strict=True) if kind != "pictures")
        raise UserError(f"{odd} is fitted by itself; give it alone, or pictures only.")
    return kinds[0]


def _kind_of_one(path: Path) -> str:
    from captures.imports.colmap_model import model_folder

    if not path.is_dir():
        check_file(path)
        suffix = path.suffix.lower()
        if suffix in MESH_SUFFIXES:
            return "mesh"
        if suffix in VIDEO_SUFFIXES:
            return "video"
        return "transforms" if path.name.startswith("transforms") else "pictures"
    if any(path.glob("metadata_*.json")) or (path / "dataset.json").is_file():
        return "subject"
    if any(path.glob("transforms*.json")):
        return "transforms"
    if model_folder(path) is not None:
        return "colmap"
    found = [p for p in path.iterdir() if p.suffix.lower() in (*MESH_SUFFIXES, *VIDEO_SUFFIXES)]
    if len(found) == 1:
        return _kind_of_one(found[0])
    return "pictures"


def read_capture(
    paths: Sequence[Path], settings: CaptureSettings, preparer: Preparer, convention: str | None
) -> Captured:
    """Read what is known of a person.

    Args:
        paths: see :func:`kind_of`.
        preparer: frames pictures without cameras.
        convention: of the cameras of a multi-view folder without ``dataset.json``.

    Raises:
        UserError: it can't be read, or too few pictures show the person.
    """
    kind = kind_of(paths)
    if kind == "pictures":
        return _pictures(name_pictures(paths), preparer)
    path = paths[0]
    if kind == "video":
        return _video(_only(path, VIDEO_SUFFIXES), settings, preparer)
    if kind == "subject":
        return _subject(path, settings, convention)
    importers: dict[str, Callable[[Path, Path, CaptureSettings], None]] = {
        "mesh": _import_mesh,
        "transforms": _import_transforms,
        "colmap": lambda source, target, how: _import_colmap(source, target, how, preparer),
    }
    with TemporaryDirectory() as parent:
        target = Path(parent) / "set"
        # The importers speak of the set, which goes away again.
        with contextlib.redirect_stdout(io.StringIO()):
            importers[kind](path, target, settings)
        return _views(MultiViewSet(target), None, settings, kind)


def capture_of(
    source: str | Path | Sequence[Picture],
    preparer: Preparer,
    cameras: Cameras | None,
    settings: CaptureSettings,
    convention: str | None,
) -> tuple[Captured, str]:
    """Return what is known of a person, on disk or in memory, and what to call it.

    Raises:
        UserError: see :func:`read_capture`; or the pictures are not as many as the cameras.
    """
    one = isinstance(source, str | Path)
    items = [source] if one else list(source)  # pyright: ignore[reportArgumentType]
    paths = [Path(item) for item in items if isinstance(item, str | Path)]
    if cameras is None and items and len(paths) == len(items):
        first = paths[0]
        name = first.stem if first.is_file() else first.resolve().name
        return read_capture(paths, settings, preparer, convention), name
    names = [str(p) if isinstance(p, str | Path) else f"picture {i}" for i, p in enumerate(items)]
    if cameras is None:
        return prepared(items, preparer, names), "avatar"
    if len(items) != len(cameras):
        raise UserError(f"there are {len(items)} pictures but {len(cameras)} cameras.")
    pictures = [with_alpha(read_portrait(item)) for item in items]
    for name, picture in zip(names, pictures, strict=True):
        check_portrait(picture, name)
    return Captured(pictures, cameras, names, "pictures with cameras"), "avatar"


def prepared(pictures: Sequence[Picture], preparer: Preparer, names: Sequence[str]) -> Captured:
    """Frame and cut out pictures of one person from cameras unknown.

    Raises:
        UserError: none can be used, with the reasons.
    """
    kept, called, left_out = [], [], []
    bar = progress(list(pictures), desc="pictures", unit="picture", leave=False)
    for name, picture in zip(names, bar, strict=True):
        try:
            kept.append(with_alpha(preparer(picture, name)))
            called.append(name)
        except UserError as error:
            left_out.append(str(error))
    if not kept:
        raise UserError("\n       ".join(left_out or ["there are no pictures."]))
    return Captured(kept, None, called, "pictures", left_out)


def _pictures(files: dict[str, Path], preparer: Preparer) -> Captured:
    return prepared(list(files.values()), preparer, [str(file) for file in files.values()])


def _video(path: Path, settings: CaptureSettings, preparer: Preparer) -> Captured:
    found, reasons = [], []
    for seconds, candidates in video_frames(path, settings.frames):
        for candidate in candidates:
            try:
                found.append((f"{path} at {seconds:.1f} s", with_alpha(preparer(candidate))))
                break
            except UserError as error:
                reason = str(error).replace("the picture", f"{path} at {seconds:.1f} s")
        else:
            reasons.append(reason)
    if not found:
        raise UserError(f"no picture of {path} can be used: {reasons[0]}")
    names, pictures = zip(*found, strict=True)
    return Captured(list(pictures), None, list(names), "video", reasons)


def _only(path: Path, suffixes: tuple[str, ...]) -> Path:
    """The file itself, or the one of its kind in a folder."""
    if path.is_file():
        return path
    return next(p for p in sorted(path.iterdir()) if p.suffix.lower() in suffixes)


def _subject(path: Path, settings: CaptureSettings, convention: str | None) -> Captured:
    if (path / "dataset.json").is_file():
        views = MultiViewSet(path)
        if len(views.names) != 1:
            raise UserError(
                f"{path} holds {len(views.names)} people; give the folder of one of them, e.g. "
                f"{path / views.names[0]} (fit-triplanes fits them all)."
            )
        return _views(views, None, settings, "subject")
    return _views(MultiViewSet(path.parent, convention), path.name, settings, "subject")


def _views(views: MultiViewSet, name: str | None, settings: CaptureSettings, kind: str) -> Captured:
    name = name or views.names[0]
    frames = views.frames(name)
    first = views.pictures.portrait_frame
    rest = [frame for frame in frames if frame != first]
    if len(rest) >= settings.most:
        places = np.linspace(0, len(rest) - 1, settings.most - 1).round().astype(int)
        rest = [rest[i] for i in places]
    loaded = views.load(name, [first, *rest])
    shown = (loaded.images[..., 3] > 127).any(axis=(1, 2))
    if not shown[0]:
        raise UserError(
            f"{views.root / name} is empty: its view {first}, the portrait, is transparent."
        )
    names = [f"{name}, view {frame}" for frame in loaded.frames]
    kept = np.flatnonzero(shown)
    left_out = [f"{names[i]} is transparent." for i in np.flatnonzero(~shown)]
    pictures = [loaded.images[i] for i in kept]
    cameras = loaded.cameras[kept.tolist()]
    return Captured(pictures, cameras, [names[i] for i in kept], kind, left_out)


def _import_mesh(path: Path, target: Path, settings: CaptureSettings) -> None:
    from studio.sets.import_meshes import ImportMeshesConfig, import_meshes

    how = {"up": settings.up, "front": settings.front, "n_views": settings.views}
    source = _only(path, MESH_SUFFIXES)
    import_meshes(ImportMeshesConfig(source, target, size=192, test_view_every=0, **how))


def _import_transforms(path: Path, target: Path, settings: CaptureSettings) -> None:
    from captures.imports.transforms import ImportTransformsConfig, import_transforms

    how = {"up": settings.camera_up, "front": settings.camera_front}
    scale = settings.camera_scale
    import_transforms(ImportTransformsConfig(path, target, scale=scale, test_view_every=0, **how))


def _import_colmap(path: Path, target: Path, settings: CaptureSettings, preparer: Preparer) -> None:
    from captures.imports.colmap import ImportColmapConfig, import_colmap

    frontal = settings.frontal or _frontal(path / "images", preparer)
    import_colmap(ImportColmapConfig(path, target, frontal=frontal, size=256, test_view_every=0))


def _frontal(folder: Path, preparer: Preparer) -> str:
    """Name of the picture whose face is turned least."""
    from runtime.picture_files import read_picture

    if not folder.is_dir():
        raise UserError(f"{folder} is missing; it should hold the pictures of the COLMAP model.")
    best: tuple[float, str] | None = None
    for file in progress(list_pictures(folder), desc="faces", unit="picture", leave=False):
        picture = np.ascontiguousarray(read_picture(file)[..., :3])
        for face in preparer.maker.detect(picture)[:1]:
            if best is None or face.turn < best[0]:
                best = (face.turn, file.name)
    if best is None:
        raise UserError(
            f"no picture of {folder} shows a face from the front; name the most frontal one with "
            "--capture.frontal."
        )
    return best[1]
