"""One subject's views: the scene is built once, the pictures are drawn side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from captures.cameras import Cameras
from captures.conventions import named_convention
from captures.multiview import IMAGE_NAME, METADATA_NAME, write_view
from studio.assets import AssetFolder
from studio.drawing.scene import Scene
from studio.looks.pose import Pose
from studio.people.subject import Subject

CONVENTION = "rodinhd"


@dataclass
class PreparedSubject:
    """A subject in a pose, ready to be drawn."""

    subject: Subject
    pose: Pose
    scene: Scene


def prepare(assets: AssetFolder, subject: Subject, pose: Pose, size: int) -> PreparedSubject:
    """Build the scene of `subject` for pictures of `size` pixels a side."""
    from studio.people.figure import build_scene

    return PreparedSubject(subject, pose, build_scene(assets, subject, texture_size(size), pose))


def texture_size(size: int) -> int:
    """Largest texture side that pictures of `size` pixels a side can show."""
    return 512 if size <= 128 else 1024 if size <= 256 else 2048


def render_views(
    scene: Scene,
    rig: Cameras,
    folder: Path,
    maps: tuple[str, ...],
    supersampling: int,
    threads: int,
) -> None:
    """Draw the views of `rig` that `folder` lacks.

    Args:
        maps: of `studio.drawing.maps.MAPS`, written beside every picture.
        supersampling: samples a side of every pixel.
        threads: that draw views; the files don't depend on it.
    """
    from studio.drawing.maps import draw_maps, write_maps
    from studio.drawing.raster import Camera, draw

    convention = named_convention(CONVENTION)

    def one(view: int) -> None:
        camera = Camera.of(rig, view)
        if maps and not all((folder / f"{name}_{view:06d}.png").exists() for name in maps):
            write_maps(folder, view, draw_maps(scene, camera), maps)
        picture = folder / IMAGE_NAME.format(view)
        if not (picture.exists() and (folder / METADATA_NAME.format(view)).exists()):
            image = draw(scene, camera, supersampling)
            write_view(folder, view, image, rig, view, convention)

    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(one, range(len(rig))):
            pass
