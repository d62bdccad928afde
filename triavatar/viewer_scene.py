"""The viewer's scene: triplanes found at a path, and views of them in three layers.

Letters: H, W picture size in pixels.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from captures.comparison import to_uint8
from renderer.render import RenderSettings
from renderer.samples import Rendered
from triavatar.avatar import Avatar
from triavatar.views import still_cameras

LAYERS = ("color", "depth", "opacity")
DEPTH_COLORS = (
    (0.16, 0.08, 0.36),
    (0.18, 0.30, 0.62),
    (0.10, 0.55, 0.60),
    (0.30, 0.74, 0.40),
    (0.94, 0.84, 0.24),
    (1.00, 0.98, 0.90),
)
"""Colours of depth from far to near, ever lighter; more shades than grey alone can show."""
KEPT = 4
"""Triplanes kept in memory."""


@dataclass(frozen=True)
class Viewpoint:
    """A place of the camera: degrees, and world units from the box's centre."""

    azimuth: float
    elevation: float
    distance: float


class Scene:
    """Renders views of triplanes; the last few stay in memory.

    Args:
        triplanes: files by name.
        decoder: decoder folder; needed for files outside a triplane folder.
        march: how rays are marched at rest; half as many steps while moving.
        device: where to render.
    """

    def __init__(
        self,
        triplanes: dict[str, Path],
        decoder: Path | None,
        march: RenderSettings,
        device: torch.device,
    ):
        self.triplanes, self.decoder = triplanes, decoder
        self.march, self.device = march, device
        self._open: OrderedDict[str, Avatar] = OrderedDict()

    def load(self, name: str) -> Avatar:
        """Return an avatar, from memory if it was shown lately.

        Raises:
            UserError: the file or its decoder is missing or damaged, or they don't fit.
        """
        if name not in self._open:
            avatar = Avatar.load(
                self.triplanes[name], decoder=self.decoder, device=str(self.device)
            )
            avatar.occupancy(self.march)
            self._open[name] = avatar
            while len(self._open) > KEPT:
                self._open.popitem(last=False)
        self._open.move_to_end(name)
        return self._open[name]

    def render(
        self,
        name: str,
        viewpoint: Viewpoint,
        size: int,
        layer: str = "color",
        background: float = 1.0,
        moving: bool = False,
    ) -> np.ndarray:
        """One picture, uint8 [H, W, 3].

        Args:
            layer: "color"; "depth", from violet (far) to white (near); or "opacity".
            background: grey level behind the colours, 0 black to 1 white.
            moving: render with half as many steps.
        """
        march = replace(self.march, steps=max(1, self.march.steps // 2)) if moving else self.march
        camera = still_cameras((viewpoint.azimuth,), size, viewpoint.elevation, viewpoint.distance)
        views = self.load(name).render(camera, background=background, settings=march)
        view = Rendered(views.color[0], views.opacity[0], views.depth[0])
        return to_uint8(_layer(view, layer, viewpoint.distance))


def _layer(view: Rendered, layer: str, distance: float) -> Tensor:
    """[H, W, 3] in [0, 1]."""
    if layer == "color":
        return view.color
    shown = view.opacity[..., None]
    if layer == "opacity":
        return shown.expand(*view.opacity.shape, 3)
    # One scale, as deep as the ball in the box, so that turning doesn't change the colours.
    nearness = (1 - (view.depth - (distance - 1)) / 2).clamp(0, 1) * (len(DEPTH_COLORS) - 1)
    colors = torch.tensor(DEPTH_COLORS).to(view.color)
    below = nearness.floor().long().clamp(max=len(DEPTH_COLORS) - 2)
    part = (nearness - below)[..., None]
    return shown * (colors[below] * (1 - part) + colors[below + 1] * part)
