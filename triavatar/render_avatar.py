"""``triavatar render``: still views and a turntable of one triplane."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from renderer.decoder import TriplaneDecoder
from renderer.render import RenderSettings
from runtime.devices import select_device
from runtime.errors import UserError
from triavatar.sheets import save_picture
from triavatar.turntable import TurntableFormat, write_turntable
from triavatar.views import (
    on_device,
    open_triplane,
    render_views,
    still_cameras,
    turntable_cameras,
)


@dataclass
class ViewConfig:
    """What is rendered of an avatar."""

    size: int = 512
    """Width and height of every picture in pixels."""
    azimuths: tuple[float, ...] = (-60.0, -30.0, 0.0, 30.0, 60.0, 180.0)
    """Still views, in degrees from the front towards the subject's left."""
    frames: int = 90
    """Views of the turntable, a full turn; 0 for none."""
    fps: int = 30
    """Frames of the turntable per second."""
    turntable: tuple[TurntableFormat, ...] = ("mp4",)
    """Files of the turntable: mp4, html (one page that holds all frames and turns by dragging,
    without a network) and gif."""
    elevation: float = 5.0
    """Height of the camera above the horizon in degrees."""
    distance: float = 4.5
    """From the camera to the box's centre in world units (the box is [-1, 1]³)."""
    background: float = 1.0
    """Grey level behind the subject, 0 black to 1 white."""
    march: RenderSettings = field(default_factory=RenderSettings)
    """How rays are marched."""

    def check(self) -> None:
        """Refuse values that can't be rendered (UserError)."""
        if self.size < 8:
            raise UserError(f"size {self.size} is too small; use at least 8 pixels.")
        if not self.azimuths or self.frames < 0 or self.fps < 1:
            raise UserError("views need at least one azimuth, frames ≥ 0 and fps ≥ 1.")
        if self.distance < 1.8:
            raise UserError(f"distance {self.distance} lies inside the box; use at least 1.8.")


@dataclass
class RenderConfig:
    """Settings of ``triavatar render``."""

    triplane: Path
    """Triplane file: .safetensors, or the .npy layout [3, 1, C, H, W]."""
    output_dir: Path
    """Folder for view_*.png and turntable.*."""
    decoder: Path | None = None
    """Decoder folder; found by itself for a file inside a triplane folder."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """What to render."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


def write_views(
    folder: Path,
    planes: Tensor,
    decoder: TriplaneDecoder,
    views: ViewConfig,
    title: str | None = None,
) -> np.ndarray:
    """Write ``view_<azimuth>.png`` and ``turntable.*`` into ``folder``.

    Args:
        folder: made when missing.
        planes: [3, C, H, W] on the decoder's device.
        decoder: the shared decoder.
        views: what to render.
        title: of the turntable's page; the folder's name without it.

    Returns:
        The still views, uint8 [N, H, W, 3].
    """
    cameras = still_cameras(views.azimuths, views.size, views.elevation, views.distance)
    stills = render_views(planes, decoder, cameras, views.march, views.background)
    for azimuth, picture in zip(views.azimuths, stills, strict=True):
        save_picture(folder / f"view_{azimuth:+04.0f}.png", picture)
    if views.frames:
        turn = turntable_cameras(views.frames, views.size, views.elevation, views.distance)
        frames = render_views(planes, decoder, turn, views.march, views.background)
        write_turntable(folder, frames, views.fps, views.turntable, title or folder.name)
    return stills


def render(config: RenderConfig) -> None:
    """Render one triplane.

    Raises:
        UserError: the triplane or its decoder is missing, damaged, or they don't fit.
    """
    config.views.check()
    device = select_device(config.device)
    planes, decoder = open_triplane(config.triplane, config.decoder)
    write_views(
        config.output_dir,
        planes.to(device),
        on_device(decoder, device),
        config.views,
        config.triplane.stem,
    )
    print(f"views of {config.triplane} are in {config.output_dir}")
