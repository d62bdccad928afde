"""Shared by the importers: axes by name, cameras of a capture, writing them as a set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from captures.cameras import Cameras
from captures.conventions import Convention, similarity
from captures.description import write_description
from captures.multiview import write_view
from runtime.errors import UserError
from runtime.ownership import begin, lock_folder
from runtime.progress import counted

AXES = {
    "+x": (1, 0, 0), "-x": (-1, 0, 0), "+y": (0, 1, 0), "-y": (0, -1, 0), "+z": (0, 0, 1),
    "-z": (0, 0, -1),
}  # fmt: skip


def axes_from_up_and_front(up: np.ndarray, front: np.ndarray) -> np.ndarray:
    """Rotation [3, 3] that turns `up` to +y and `front` (made square to it) to +z.

    Raises:
        UserError: they are parallel.
    """
    up = np.asarray(up, dtype=np.float64) / np.linalg.norm(up)
    level = front - (front @ up) * up
    if np.linalg.norm(level) < 0.05 * np.linalg.norm(front):
        raise UserError("the up and front directions are parallel; choose others")
    level = level / np.linalg.norm(level)
    return np.stack([np.cross(up, level), up, level])


def convention_about(
    centre: np.ndarray, axes: np.ndarray, scale: float, camera_axes: str
) -> Convention:
    """The convention under which the file's point `centre` [3] becomes the origin."""
    return Convention(similarity(axes, scale, tuple(-scale * axes @ centre)), camera_axes)


def closest_point(origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """The point [3] with the least squared distance to lines through `origins` [N, 3].

    Args:
        directions: [N, 3] unit.

    Raises:
        UserError: the lines are (nearly) parallel.
    """
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]
    matrix = across.mean(0)
    if np.linalg.eigvalsh(matrix)[0] < 1e-4:
        raise UserError(
            "the cameras all look the same way, so the point they look at is unknown; give more "
            "views or fit to the points"
        )
    return np.linalg.solve(matrix, (across @ origins[:, :, None])[..., 0].mean(0))


def level_up(c2w: np.ndarray) -> np.ndarray:
    """Unit direction [3] that points up for cameras [N, 4, 4] (OpenCV axes) held level.

    Level cameras have horizontal x axes, whatever their tilt, so up is square to all of them. Where
    these axes span no plane (cameras on one side), it is the mean of the pictures' up directions.
    """
    upright = -c2w[:, :3, 1].mean(0)
    _, spread, basis = np.linalg.svd(c2w[:, :3, 0])
    up = basis[2] if len(spread) == 3 and spread[1] > 0.2 * spread[0] else upright
    up = up * (1.0 if up @ upright >= 0 else -1.0)
    return up / max(float(np.linalg.norm(up)), 1e-12)


def most_frontal(positions: np.ndarray) -> int:
    """Index of the camera [N, 3] (world) that stands closest to straight ahead (+z)."""
    return int(np.argmax(positions[:, 2] / np.linalg.norm(positions, axis=1)))


def needed_tangent(rgba: np.ndarray, fx: float, fy: float, cx: float, cy: float) -> float:
    """Half field of view, as a tangent, that shows all of a picture's content; 0 if it is empty."""
    rows, columns = np.nonzero(rgba[..., 3].any(1))[0], np.nonzero(rgba[..., 3].any(0))[0]
    if not len(rows):
        return 0.0
    aside = max(cx - columns[0], columns[-1] + 1 - cx) / fx
    return float(max(aside, max(cy - rows[0], rows[-1] + 1 - cy) / fy))


def seen_tangent(rgba: np.ndarray, fx: float, fy: float, cx: float, cy: float) -> float:
    """Half field of view, as a tangent, up to which nothing of the subject lies past the border.

    Infinite where the border doesn't cut the subject off: what lies beyond is known to be empty.
    """
    alpha = rgba[..., 3] > 127
    height, width = alpha.shape
    sides = (
        (alpha[:, 0], cx / fx),
        (alpha[:, -1], (width - cx) / fx),
        (alpha[0], cy / fy),
        (alpha[-1], (height - cy) / fy),
    )
    return min((tangent for cut, tangent in sides if cut.any()), default=np.inf)


def centred_square(
    rgba: np.ndarray, fx: float, fy: float, cx: float, cy: float, tangent: float, size: int
) -> np.ndarray:
    """Cuts and resamples a picture so that its optical axis is in the middle of a square.

    Args:
        rgba: uint8 [H, W, 4], straight alpha; outside it is empty.
        fx, fy, cx, cy: its camera in pixels.
        tangent: half field of view of the result, as a tangent.
        size: side of the result in pixels.

    Returns:
        uint8 [size, size, 4], of a camera with focal length size / (2 · tangent) both ways.
    """
    box = np.array([cx - tangent * fx, cy - tangent * fy, cx + tangent * fx, cy + tangent * fy])
    height, width = rgba.shape[:2]
    margin = int(np.ceil(max(-box.min(), box[2] - width, box[3] - height, 0.0))) + 1
    # Premultiplied, so that hidden colours do not bleed over edges.
    values = rgba.astype(np.float32)
    values[..., :3] *= values[..., 3:] / 255
    values = np.pad(values, ((margin, margin), (margin, margin), (0, 0)))
    place = tuple(float(v) + margin for v in box)
    planes = [
        Image.fromarray(values[..., k]).resize((size, size), Image.Resampling.BICUBIC, box=place)
        for k in range(4)
    ]
    out = np.stack([np.asarray(plane) for plane in planes], -1)
    alpha = np.clip(out[..., 3:], 0, 255)
    colour = np.clip(out[..., :3] * 255 / np.maximum(alpha, 0.5), 0, 255)
    level = np.round(alpha).astype(np.uint8)
    return np.concatenate([np.where(level > 0, np.round(colour), 0).astype(np.uint8), level], -1)


def rigid_camera(c2w: np.ndarray, where: str) -> np.ndarray:
    """A camera-to-world matrix [4, 4] freed from a uniform scale.

    Raises:
        UserError: it is no rotation otherwise (it mirrors, stretches or flattens), which no reader
            of a set accepts; ``where`` names it.
    """
    axes = c2w[:3, :3]
    scale = float(np.cbrt(np.linalg.det(axes)))
    # Written so that NaN is refused, too.
    if not (scale > 1e-6 and np.abs(axes @ axes.T / scale**2 - np.eye(3)).max() <= 0.005):
        raise UserError(
            f"{where}: transform_matrix is no rotation (it mirrors or stretches); write the "
            "cameras again without the scale of their objects"
        )
    rigid = np.eye(4)
    rigid[:3, :3], rigid[:3, 3] = axes / scale, c2w[:3, 3]
    return rigid


def begin_import(config: Any, command: str) -> None:
    """Claim ``config.output_dir`` for an import; see :mod:`runtime.ownership`.

    Raises:
        UserError: it holds anything else than this import's earlier run.
    """
    lock_folder(config.output_dir)
    settings = {key: value for key, value in vars(config).items() if key != "output_dir"}
    settings["source"] = str(config.source.resolve())
    begin(config.output_dir, command, settings)


class CaptureWriter:
    """Writes the views of one subject, frames numbered from 0: centred pinholes.

    Args:
        folder: of the subject.
        target: convention of the files.
    """

    def __init__(self, folder: Path, target: Convention):
        self.folder, self.target = folder, target
        self.sizes: list[tuple[int, int]] = []

    def add(self, image: np.ndarray, c2w: np.ndarray, focal: float, where: Path | str) -> None:
        """Write the next view.

        Args:
            image: RGBA uint8 [H, W, 4], straight alpha.
            c2w: [4, 4] in house convention; focal: in picture widths.
            where: what an error names.

        Raises:
            UserError: the picture's size is not that of those before, which readers refuse.
        """
        h, w = image.shape[:2]
        self.sizes.append((w, h))
        if (w, h) != self.sizes[0]:
            raise UserError(
                f"{where} has {w}×{h} pixels but the subject's others {self.sizes[0][0]}×"
                f"{self.sizes[0][1]}; all pictures of a subject must share one size"
            )
        f, cx, cy = (torch.tensor([v]) for v in (focal * w, w / 2, h / 2))
        camera = Cameras(torch.from_numpy(c2w)[None].float(), f, f, cx, cy, w, h)
        write_view(self.folder, len(self.sizes) - 1, image, camera, 0, self.target)


def held_out(frames: list[int], every: int) -> tuple[list[int], list[int]]:
    """(training, test) frames: of every `every` frames one, never frame 0, is for testing; 0: none.

    Training frames come first.
    """
    test = [f for f in frames if every and f and f % every == every - 1]
    return [f for f in frames if f not in set(test)], test


def check_test_subjects(test_subjects: int, n_subjects: int) -> None:
    """Refuses a number of test subjects that leaves none for training."""
    if not 0 <= test_subjects < n_subjects:
        raise UserError(
            f"test_subjects is {test_subjects}, but the set has {n_subjects} subjects; leave at "
            "least one for training"
        )


def describe_import(
    root: Path,
    convention: Convention,
    names: list[str],
    n_frames: int,
    *,
    source: str,
    license: str,
    test_subjects: int = 0,
    test_view_every: int = 0,
    views: dict[str, list[int]] | None = None,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Write dataset.json of imported subjects and say what to do next.

    Args:
        test_subjects: how many, the last ones, are for testing.
        test_view_every: see :func:`held_out`.
        views: frames of the splits, where the source states them.

    Raises:
        UserError: no subject would be left for training.
    """
    check_test_subjects(test_subjects, len(names))
    cut = len(names) - test_subjects
    if views is None:
        train, test = held_out(list(range(n_frames)), test_view_every)
        views = {"train": train, "validation": [], "test": test}
    write_description(
        root,
        convention,
        identities={"train": names[:cut], "validation": [], "test": names[cut:]},
        views=views,
        objects={name: {"attributes": {}} for name in names},
        provenance={"imported_from": source, **(provenance or {})},
        license=license,
    )
    subjects = counted(len(names), "subject")
    held = f"{len(views['validation'] + views['test'])} of {n_frames} views held out"
    print(f"{root}: {subjects}, {held}; next: triavatar doctor {root}")
