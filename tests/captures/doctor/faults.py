"""Faults to plant into a clean multi-view set, as its files would come from elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir())


def pictures(root: Path) -> Iterator[Path]:
    for folder in folders(root):
        yield from sorted(folder.glob("img_proc_fg_*.png"))


def edit_cameras(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Apply ``change`` to every camera entry of the set."""
    for path in sorted(root.glob("*/metadata_*.json")):
        content = json.loads(path.read_text())
        change(content["cameras"][0])
        path.write_text(json.dumps(content))


def edit_matrices(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    def edit(entry: dict[str, Any]) -> None:
        entry["transformation"] = change(np.array(entry["transformation"])).tolist()

    edit_cameras(root, edit)


def edit_pictures(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Apply ``change`` to every picture as floats in [0, 1]."""
    for path in pictures(root):
        rgba = np.asarray(Image.open(path)).astype(np.float64) / 255
        out = np.asarray(change(rgba))
        Image.fromarray((out * 255 + 0.5).astype(np.uint8)).save(path)


def edit_description(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = root / "dataset.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def view(root: Path, frame: int, subject: int = 0) -> tuple[Path, Path]:
    """Picture and camera file of one view."""
    folder = folders(root)[subject]
    return folder / f"img_proc_fg_{frame:06d}.png", folder / f"metadata_{frame:06d}.json"


def inverse_matrices(root: Path) -> None:
    edit_matrices(root, np.linalg.inv)


def transposed_matrices(root: Path) -> None:
    edit_matrices(root, np.transpose)


def opencv_axes(root: Path) -> None:
    edit_matrices(root, lambda m: m @ np.diag([1.0, -1, -1, 1]))


def rolled_axes(root: Path) -> None:
    """Cameras whose x points down and y right, as phones held sideways write them."""
    quarter = np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    edit_matrices(root, lambda m: m @ quarter)


def left_handed(root: Path) -> None:
    """As an engine with a left-handed world writes: z of world and cameras reversed."""
    flip = np.diag([1.0, 1, -1, 1])
    edit_matrices(root, lambda m: flip @ m @ flip)


def flipped_pictures(root: Path) -> None:
    edit_pictures(root, lambda rgba: rgba[:, ::-1])


def turned_world(root: Path) -> None:
    """y up in the files, while the set says z."""
    turn = np.array([[0.0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    edit_matrices(root, lambda m: turn @ m)


def _moved(matrix: np.ndarray, factor: float, shift: tuple[float, float, float]) -> np.ndarray:
    out = matrix.copy()
    out[:3, 3] = out[:3, 3] * factor + shift
    return out


def centimetres(root: Path) -> None:
    edit_matrices(root, lambda m: _moved(m, 100.0, (0, 0, 0)))


def odd_scale(root: Path) -> None:
    edit_matrices(root, lambda m: _moved(m, 0.31, (0, 0, 0)))


def off_centre(root: Path) -> None:
    edit_matrices(root, lambda m: _moved(m, 1.0, (0, 0, 35.0)))


def focal_in_pixels(root: Path) -> None:
    def change(entry: dict[str, Any]) -> None:
        entry["focal_length"] *= entry["resolution"][0] / entry["sensor_width"]

    edit_cameras(root, change)


def focal_in_widths(root: Path) -> None:
    def change(entry: dict[str, Any]) -> None:
        entry["focal_length"] /= entry["sensor_width"]

    edit_cameras(root, change)


def focal_as_angle(root: Path) -> None:
    def change(entry: dict[str, Any]) -> None:
        half = np.arctan(entry["sensor_width"] / 2 / entry["focal_length"])
        entry["focal_length"] = float(np.degrees(2 * half))

    edit_cameras(root, change)


def wrong_sensor(root: Path) -> None:
    edit_cameras(root, lambda entry: entry.update(sensor_width=20.0))


def premultiplied(root: Path) -> None:
    edit_pictures(root, lambda x: np.concatenate([x[..., :3] * x[..., 3:], x[..., 3:]], -1))


def white_matte(root: Path) -> None:
    edit_pictures(
        root, lambda x: np.concatenate([x[..., :3] * x[..., 3:] + 1 - x[..., 3:], x[..., 3:]], -1)
    )


def inverted_alpha(root: Path) -> None:
    edit_pictures(root, lambda x: np.concatenate([x[..., :3], 1 - x[..., 3:]], -1))


def no_alpha(root: Path) -> None:
    edit_pictures(root, lambda x: x[..., :3] * x[..., 3:] + 1 - x[..., 3:])


def opaque_alpha(root: Path) -> None:
    edit_pictures(root, lambda x: np.concatenate([x[..., :3], np.ones_like(x[..., 3:])], -1))


def mixed_sizes(root: Path) -> None:
    picture, camera = view(root, 5)
    image = Image.open(picture)
    image.resize((image.width // 2, image.height // 2)).save(picture)
    content = json.loads(camera.read_text())
    content["cameras"][0]["resolution"] = [image.width // 2, image.height // 2]
    camera.write_text(json.dumps(content))


def resized_pictures(root: Path) -> None:
    for path in pictures(root):
        image = Image.open(path)
        image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX).save(path)


def duplicate_view(root: Path) -> None:
    shutil.copy(view(root, 3)[0], view(root, 7)[0])


def duplicate_subject(root: Path) -> None:
    first, second = folders(root)[:2]
    shutil.rmtree(second)
    shutil.copytree(first, second)


def missing_view(root: Path) -> None:
    for path in view(root, 6):
        path.unlink()


def missing_camera(root: Path) -> None:
    view(root, 6)[1].unlink()


def missing_portrait(root: Path) -> None:
    for path in view(root, 0, subject=1):
        path.unlink()


def truncated_picture(root: Path) -> None:
    path = view(root, 4)[0]
    path.write_bytes(path.read_bytes()[:-40])


def broken_camera(root: Path) -> None:
    path = view(root, 4)[1]
    path.write_text(path.read_text()[:40])


def empty_picture(root: Path) -> None:
    path = view(root, 4)[0]
    Image.new("RGBA", Image.open(path).size).save(path)


def swapped_pictures(root: Path) -> None:
    (a, _), (b, _) = view(root, 2), view(root, 11)
    content = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(content)


def swapped_frames(root: Path, other: int) -> None:
    """Frame 0 and another change places, with their cameras, in every subject."""
    for subject in range(len(folders(root))):
        for a, b in zip(view(root, 0, subject), view(root, other, subject), strict=True):
            content = a.read_bytes()
            a.write_bytes(b.read_bytes())
            b.write_bytes(content)


def leaking_split(root: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        identities = content["splits"]["identities"]
        identities["test"] = identities["train"][:1]

    edit_description(root, change)


def unknown_split(root: Path) -> None:
    edit_description(root, lambda c: c["splits"]["identities"]["train"].append("nobody"))


def no_description(root: Path) -> None:
    (root / "dataset.json").unlink()


def drifting_cameras(root: Path) -> None:
    """Every camera turned about the subject by an angle of its own."""
    draw = np.random.default_rng(5)

    def change(matrix: np.ndarray) -> np.ndarray:
        angle = np.radians(draw.uniform(-30, 30))
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        return turn @ matrix

    edit_matrices(root, change)


def foreign_subject(root: Path) -> None:
    """One subject's cameras come from another program: world-to-camera, OpenCV."""
    for path in sorted(folders(root)[1].glob("metadata_*.json")):
        content = json.loads(path.read_text())
        matrix = np.array(content["cameras"][0]["transformation"])
        content["cameras"][0]["transformation"] = np.linalg.inv(matrix).tolist()
        path.write_text(json.dumps(content))
