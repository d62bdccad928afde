"""An avatar: a triplane and the decoder that renders it.

Legend: N views, C channels, H W picture or plane size, S side of the portrait.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captures.cameras import Cameras, orbit_cameras
from renderer.decoder import TriplaneDecoder
from renderer.fitted_set import FittedSet
from renderer.occupancy import OccupancyGrid
from renderer.render import RenderSettings, build_occupancy, render_images
from renderer.samples import Rendered
from renderer.triplane import check_planes
from runtime.described import Described, read_described
from runtime.devices import select_device
from runtime.errors import UserError
from runtime.files import write_json
from runtime.picture_files import read_picture
from runtime.progress import progress
from triavatar.avatar_files import find_triplanes, open_triplane, set_of
from triavatar.views import still_cameras

if TYPE_CHECKING:
    from triavatar.export.settings import ExportSettings

PORTRAIT = "portrait.png"
RECORD = "avatar.json"


class AvatarRecord(Described):
    """``avatar.json``; docs/formats.md describes the rest of it."""

    warnings: list[str] = []


@dataclass
class Avatar:
    """A head that can be seen from anywhere.

    Attributes:
        planes: [3, C, H, W] float32 in [-1, 1].
        decoder: renders them; on the planes' device.
        name: file name of the triplane, title of pages.
        portrait: what it was made from, uint8 [S, S, 3 | 4], or None.
        record: how it was made; what JSON can hold.

    Example:
        >>> avatar = Avatar.load("runs/me")
        >>> avatar.picture(azimuth=30, size=512).save("side.png")
        >>> avatar.render(orbit_cameras(8, size=128)).color.shape
        torch.Size([8, 128, 128, 3])
    """

    planes: Tensor
    decoder: TriplaneDecoder
    name: str = "avatar"
    portrait: np.ndarray | None = None
    record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_planes(self.planes, batched=False)
        self._grids: dict[tuple[int, float], OccupancyGrid] = {}

    @property
    def device(self) -> torch.device:
        """Return where it is rendered."""
        return self.planes.device

    def to(self, device: torch.device | str) -> Avatar:
        """Move planes and decoder; returns the avatar itself."""
        self.planes = self.planes.to(device)
        torch.nn.Module.to(self.decoder, device)
        self._grids.clear()
        return self

    def occupancy(self, settings: RenderSettings) -> OccupancyGrid:
        """Return the occupied cells, found once for each grid size and threshold."""
        key = (settings.grid, settings.threshold)
        if key not in self._grids:
            self._grids[key] = build_occupancy(self.planes, self.decoder, settings)
        return self._grids[key]

    def render(
        self,
        cameras: Cameras | None = None,
        *,
        background: Tensor | float = 1.0,
        settings: RenderSettings | None = None,
    ) -> Rendered:
        """Render N views.

        Args:
            cameras: N pinhole cameras; one of 512² in front of the face without.
            background: grey level, 0 black to 1 white, or sRGB [3].
            settings: how rays are marched.

        Returns:
            ``color`` [N, H, W, 3] sRGB in [0, 1] on the background, ``opacity`` [N, H, W] in
            [0, 1] and ``depth`` [N, H, W] in world units; without gradients, on the device.
        """
        settings = settings or RenderSettings()
        cameras = cameras if cameras is not None else still_cameras((0.0,), 512, 5.0, 4.5)
        grid = self.occupancy(settings)
        return render_images(self.planes, self.decoder, cameras, background, settings, grid)

    def pictures(
        self,
        cameras: Cameras,
        *,
        background: Tensor | float = 1.0,
        settings: RenderSettings | None = None,
        alpha: bool = False,
        desc: str = "render",
    ) -> np.ndarray:
        """Render N views as sRGB pictures, uint8 [N, H, W, 3 | 4], with a progress bar.

        Args:
            cameras, background, settings: see :meth:`render`.
            alpha: leave the background out: colours with straight alpha.
            desc: what the bar says; it is shown for more than a few views.
        """
        views = range(len(cameras))
        bar = progress(views, desc=desc, unit="view", disable=len(views) < 4, leave=False)
        behind = 0.0 if alpha else background
        pictures = []
        for i in bar:
            view = self.render(cameras[i], background=behind, settings=settings)
            color, opacity = view.color[0], view.opacity[0][..., None]
            if alpha:
                straight = (color / opacity.clamp(min=1e-4)).clamp(max=1)
                color = torch.cat([straight, opacity.clamp(0, 1)], dim=-1)
            pictures.append(to_bytes(color))
        return np.stack(pictures)

    def picture(
        self,
        azimuth: float = 0.0,
        *,
        elevation: float = 5.0,
        distance: float = 4.5,
        size: int = 512,
        background: float = 1.0,
        settings: RenderSettings | None = None,
    ) -> Image.Image:
        """Render one view as a picture.

        Args:
            azimuth: degrees from the front towards the subject's left.
            elevation: degrees above the horizon.
            distance: from the head's centre, in world units (the box is [-1, 1]³).
            size: width and height in pixels.
            background: grey level, 0 black to 1 white.
            settings: how rays are marched.
        """
        camera = still_cameras((azimuth,), size, elevation, distance)
        rendered = self.render(camera, background=background, settings=settings)
        return Image.fromarray(to_bytes(rendered.color[0]))

    def turntable(
        self,
        path: Path | str,
        *,
        size: int = 512,
        frames: int = 90,
        fps: int = 30,
        elevation: float = 5.0,
        distance: float = 4.5,
        background: float = 1.0,
        settings: RenderSettings | None = None,
    ) -> Path:
        """Write a full turn; the suffix decides: ``.mp4``, ``.gif``, or ``.html`` (one page).

        Args:
            path: file to write.
            size: width and height in pixels.
            frames: views of the turn.
            fps: frames per second.
            elevation, distance, background, settings: see :meth:`picture`.

        Returns:
            The path.

        Raises:
            UserError: the suffix is none of these.
        """
        from triavatar.turntable import write_turn

        turn = orbit_cameras(frames, size=size, elevation_degrees=elevation, distance=distance)
        pictures = self.pictures(turn, background=background, settings=settings, desc="turntable")
        return write_turn(Path(path), pictures, fps, self.name)

    def export(self, path: Path | str, settings: ExportSettings | None = None) -> Path:
        """Write the avatar for other programs; the suffix decides, e.g. ``.glb``.

        Args:
            path: file to write; :data:`triavatar.export.settings.FORMATS` lists the suffixes.
            settings: how finely.

        Returns:
            The path.

        Raises:
            UserError: the suffix is unknown, the avatar is empty, or a package is missing.
        """
        from triavatar.export.maker import Maker

        Maker(self.planes, self.decoder, settings).write(Path(path), self.name)
        return Path(path)

    def save(self, folder: Path | str) -> Path:
        """Write the avatar into a triplane folder, which may hold others of the same decoder.

        ``triplanes/<name>.safetensors`` in half precision, ``decoder/`` and ``manifest.json``;
        in ``avatars/<name>/`` the portrait and, last, the record.

        Returns:
            The folder.

        Raises:
            UserError: the folder holds triplanes of another decoder or shape.
        """
        from triavatar.sheets import save_picture

        channels, height, width = self.planes.shape[1:]
        fitted = FittedSet.create(folder, self.decoder, (3, channels, height, width))
        fitted.put(self.name, self.planes)
        beside = fitted.folder / "avatars" / self.name
        if self.portrait is not None:
            save_picture(beside / PORTRAIT, self.portrait)
        write_json(beside / RECORD, self.record)
        return fitted.folder

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        name: str | None = None,
        decoder: Path | str | None = None,
        device: str = "auto",
    ) -> Avatar:
        """Read an avatar.

        Args:
            path: folder that :meth:`save`, ``generate`` or ``fit-triplanes`` wrote, the folder of
                one avatar in it, or a triplane file.
            name: which, where the folder holds several.
            decoder: decoder folder; needed for a file that lies in no triplane folder.
            device: auto, cpu, cuda or cuda:N.

        Raises:
            UserError: nothing is there, it is damaged, or several are there and none is named.
        """
        found = find_triplanes(Path(path))
        if name is None and len(found) > 1:
            raise UserError(
                f"{path} holds {len(found)} avatars; name one of them, e.g. {next(iter(found))}"
            )
        name = next(iter(found)) if name is None else name
        if name not in found:
            raise UserError(f"{path} holds no avatar '{name}'; it holds {', '.join(found)}")
        planes, loaded = open_triplane(found[name], None if decoder is None else Path(decoder))
        avatar = cls(planes, loaded, name)
        fitted = set_of(found[name])
        if fitted is not None:
            beside = fitted.folder / "avatars" / name
            if (beside / RECORD).is_file():
                record = read_described(AvatarRecord, beside / RECORD)
                avatar.record = record.model_dump(exclude_unset=True)
            if (beside / PORTRAIT).is_file():
                avatar.portrait = read_picture(beside / PORTRAIT, "portrait")
        return avatar.to(select_device(device))


def to_bytes(color: Tensor) -> np.ndarray:
    """Return colours [..., 3] in [0, 1] as uint8 on the CPU."""
    return (color * 255 + 0.5).to(torch.uint8).cpu().numpy()
