"""The viewer's scene: triplanes found at a path, and views of them in three layers.

Letters: H, W picture size in pixels.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from captures.comparison import to_uint8
from renderer.render import RenderSettings, render_rays
from renderer.samples import Rendered
from runtime.errors import UserError
from triavatar.avatar import Avatar
from triavatar.export.field import Field
from triavatar.export.surface import extract_surface, simplify
from triavatar.rig.expression import Expression
from triavatar.rig.head_model import HeadModel
from triavatar.rig.poser import SURFACE_CELLS, SURFACE_TRIANGLES, Poser
from triavatar.viewer.preview import pack_moving, pack_surface
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
STRIP = 2**14
"""Rays after which a picture that nobody waits for any more is given up."""
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
        model: head model that gives faces expressions; None for none.
    """

    def __init__(
        self,
        triplanes: dict[str, Path],
        decoder: Path | None,
        march: RenderSettings,
        device: torch.device,
        model: HeadModel | None = None,
    ):
        self.model = model
        self.triplanes, self.decoder = triplanes, decoder
        self.march, self.device = march, device
        self._open: OrderedDict[str, Avatar] = OrderedDict()
        self._posers: OrderedDict[str, Poser] = OrderedDict()

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

    def poser(self, name: str) -> Poser:
        """Return an avatar with a registered head, from memory if it was shown lately.

        Raises:
            UserError: there is no head model, or the avatar has no surface.
        """
        if self.model is None:
            raise UserError("expressions need a head model; name one with --rig.")
        if name not in self._posers:
            avatar = self.load(name)
            self._posers[name] = Poser.of(avatar.planes, avatar.decoder, self.model, self.march)
            while len(self._posers) > KEPT:
                self._posers.popitem(last=False)
        self._posers.move_to_end(name)
        return self._posers[name]

    def preview(self, name: str) -> dict:
        """Return what the page draws by itself; see :mod:`triavatar.viewer.preview`."""
        if self.model is not None:
            poser = self.poser(name)
            return pack_moving(poser.moving, poser.field)
        avatar = self.load(name)
        field = Field.of(avatar.planes, avatar.decoder, self.march)
        surface = simplify(extract_surface(field, SURFACE_CELLS), SURFACE_TRIANGLES)
        return pack_surface(surface, field)

    def render(
        self,
        name: str,
        viewpoint: Viewpoint,
        size: int,
        layer: str = "color",
        background: float = 1.0,
        moving: bool = False,
        expression: Expression | None = None,
        wanted: Callable[[], bool] = lambda: True,
    ) -> np.ndarray | None:
        """One picture, uint8 [H, W, 3]; None when nobody wants it any more.

        Args:
            layer: "color"; "depth", from violet (far) to white (near); or "opacity".
            background: grey level behind the colours, 0 black to 1 white.
            moving: render with half as many steps.
            expression: what the face does.
            wanted: asked between strips of the picture.
        """
        march = replace(self.march, steps=max(1, self.march.steps // 2)) if moving else self.march
        camera = still_cameras((viewpoint.azimuth,), size, viewpoint.elevation, viewpoint.distance)
        if expression is not None and not expression.rests:
            views = self.poser(name).render(camera, expression, background)
            view = Rendered(views.color[0], views.opacity[0], views.depth[0])
            return to_uint8(_layer(view, layer, viewpoint.distance))
        avatar = self.load(name)
        grid = avatar.occupancy(march)
        strips = []
        camera = camera.to(self.device)
        for origins, directions in zip(
            *(rays.split(STRIP) for rays in camera.image_rays(0)), strict=True
        ):
            if not wanted():
                return None
            strips.append(self._strip(avatar, grid, origins, directions, background, march))
        view = Rendered(*(torch.cat(each) for each in zip(*strips, strict=True)))
        return to_uint8(_layer(view.reshape(size, size), layer, viewpoint.distance))

    @torch.no_grad()
    def _strip(self, avatar: Avatar, grid, origins, directions, background, march) -> tuple:
        seen = render_rays(
            avatar.planes, avatar.decoder, grid, origins, directions, background, march
        )
        return seen.color.clamp(0, 1), seen.opacity, seen.depth


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
