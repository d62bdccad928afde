"""Import of a folder that has the multi-view layout already but no description (RodinHD's)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from captures.conventions import Convention, named_convention
from captures.imports.imported_set import check_test_subjects, closest_point, describe_import
from captures.multiview import IMAGE_NAME, METADATA_NAME, MultiViewSet, Views
from runtime.config import check_settings, setting
from runtime.errors import UserError
from runtime.progress import progress

_OFF_CENTRE = 0.3  # world units the point the cameras look at may be off the origin
_VISIBLE = (0.5, 2.0)  # half width, world units, that a picture may show of the middle
_FRONTAL = 30.0  # degrees frame 0 may be away from straight ahead


@dataclass
class ImportViewsConfig:
    """Check a folder in RodinHD's layout and write its dataset.json, pictures untouched."""

    source: Path
    """Folder of subjects with img_proc_fg_*.png and metadata_*.json; it gets a dataset.json."""
    convention: str = "rodinhd"
    """World and camera axes of the files: rodinhd (Blender's axes, lengths over 23 times 0.6),
    house (OpenCV cameras), opengl, blender."""
    scale: float = setting(1.0, above=0)
    """Factor on the convention's lengths, for a set made with another scale."""
    probe_views: int = setting(24, at_least=2, at_most=10**5)
    """Views of each subject whose pictures and cameras are checked, spread over all of them."""
    test_subjects: int = 0
    """How many subjects, the last ones, are held out as test identities."""
    test_view_every: int = 6
    """One of so many views (never view 0) is held out for testing; 0 holds out none."""
    license: str = "unknown"
    """SPDX identifier of the pictures' licence."""


def import_views(config: ImportViewsConfig) -> None:
    """Checks every subject, prints what was found, and writes dataset.json into the folder.

    Subjects with missing or unreadable files are named and left out of the splits.

    Raises:
        UserError: no usable subject; a folder that is described already; or cameras that do not
            look at the box, with the likely cure.
    """
    root = Path(config.source)
    if (root / "dataset.json").exists():
        raise UserError(f"{root} has a dataset.json already; delete it to import the folder anew")
    check_settings(config)
    given = named_convention(config.convention)
    matrix = given.world_from_file.copy()
    matrix[:3] *= config.scale
    convention = Convention(matrix, given.camera_axes)
    views = MultiViewSet(root, convention=config.convention)
    views.convention = convention
    found: dict[str, tuple[int, np.ndarray]] = {}
    broken: dict[str, str] = {}
    for name in progress(views.names, desc="check", unit="subject"):
        try:
            found[name] = _check(views, name, config.probe_views)
        except UserError as error:
            broken[name] = str(error)
    for name, reason in broken.items():
        print(f"left out: {name}: {reason}")
    if not found:
        raise UserError(f"{root} has no usable subject; see the reasons above")
    names = list(found)
    check_test_subjects(config.test_subjects, len(names))
    measured = np.array([values for _, values in found.values()])
    _judge(root, measured, config)
    print(
        f"{len(names)} subjects, {min(n for n, _ in found.values())} to "
        f"{max(n for n, _ in found.values())} views; pictures show {np.median(measured[:, 1]):.2f} "
        "world units to either side of the middle"
    )
    turned = [name for name, row in zip(names, measured, strict=True) if row[2] > _FRONTAL]
    if turned:
        print(
            f"warning: frame 0 of {len(turned)} subjects is no frontal portrait, e.g. of "
            f"{turned[0]}; features for generation are taken from frame 0"
        )
    describe_import(
        root,
        convention,
        names,
        max(n for n, _ in found.values()),
        source="multi-view folder",
        license=config.license,
        test_subjects=config.test_subjects,
        test_view_every=config.test_view_every,
        provenance={"convention": config.convention, "scale": config.scale},
    )


def _check(views: MultiViewSet, name: str, n_probes: int) -> tuple[int, np.ndarray]:
    """Number of views; distance of the middle they look at from the origin, half width they show
    of it, degrees of frame 0 from straight ahead."""
    frames = views.frames(name)
    folder = views.root / name
    for frame in frames:
        for pattern in (IMAGE_NAME, METADATA_NAME):
            if not (folder / pattern.format(frame)).exists():
                raise UserError(f"{folder / pattern.format(frame)} is missing")
    if frames[0] != 0 or frames[-1] != len(frames) - 1:
        raise UserError(f"frames are not numbered 0 to {len(frames) - 1}")
    chosen = sorted({round(i) for i in np.linspace(0, len(frames) - 1, n_probes)})
    loaded = views.load(name, [frames[i] for i in chosen])
    if not (loaded.images[..., 3] > 0).any(axis=(1, 2)).all():
        raise UserError("a picture is empty")
    if (loaded.images[..., 3] == 255).all():
        raise UserError("its pictures' background is not cut out")
    return len(frames), _measure(loaded)


def _measure(views: Views) -> np.ndarray:
    c2w = views.cameras.c2w.double().numpy()
    eyes, ahead = c2w[:, :3, 3], c2w[:, :3, 2]
    middle = closest_point(eyes, ahead)
    tangent = 0.5 * views.cameras.width / views.cameras.fx.double().numpy()
    shown = float(np.median(((middle - eyes) * ahead).sum(1) * tangent))
    from_front = np.degrees(np.arccos(np.clip(-ahead[0, 2], -1, 1)))
    return np.array([np.linalg.norm(middle), shown, from_front])


def _judge(root: Path, measured: np.ndarray, config: ImportViewsConfig) -> None:
    """Refuses a set whose cameras, on the whole, do not look at the box."""
    off, shown, _ = np.median(measured, axis=0)
    if shown <= 0:
        raise UserError(
            f"{root}: the cameras look away from each other, so convention "
            f"'{config.convention}' has the wrong camera axes; try another --convention"
        )
    if not _VISIBLE[0] <= shown <= _VISIBLE[1]:
        raise UserError(
            f"{root}: under convention '{config.convention}' the pictures show {shown:.3g} world "
            f"units to either side of the middle, and the box has 1; try --scale "
            f"{config.scale * 0.95 / shown:.4g} or another --convention"
        )
    if off > _OFF_CENTRE:
        raise UserError(
            f"{root}: under convention '{config.convention}' the cameras look at a point {off:.2f} "
            "world units off the origin; try another --convention, or import the pictures with "
            "studio import-transforms and its --centre"
        )
