"""Targets for views of an avatar of which its portrait says nothing, or little.

Legend: S side of the portrait, V side of a side view in pixels, N side views.

Tuned to its portrait alone, a triplane becomes a painting in front of a ruin. So it is held to its
own earlier side views, corrected where the portrait knows better: what the portrait shows
differently is carried along the surface to wherever the same surface is seen again. Where the
surface was hidden or seen at a grazing angle its mirror image speaks, with less weight, and where
that is silent, too, what looks alike.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from captures.cameras import Cameras
from likeness.portrait.portrait import Portrait
from likeness.portrait.surface import Front
from likeness.settings import SideSettings
from renderer.decoder import TriplaneDecoder
from renderer.render import RenderSettings, build_occupancy, render_images
from renderer.samples import Rendered


def turned(camera: Cameras, azimuths: list[float], elevations: list[float]) -> Cameras:
    """Turn one camera about the world's axes.

    Args:
        azimuths: degrees about +y, from +z towards +x.
        elevations: degrees upwards, as many.

    Returns:
        As many cameras as azimuths.
    """
    poses = []
    for azimuth, elevation in zip(azimuths, elevations, strict=True):
        a, e = math.radians(azimuth), -math.radians(elevation)
        about_y = [[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]]
        about_x = [[1, 0, 0], [0, math.cos(e), -math.sin(e)], [0, math.sin(e), math.cos(e)]]
        turn = torch.eye(4)
        turn[:3, :3] = torch.tensor(about_y) @ torch.tensor(about_x)
        poses.append(turn @ camera.c2w[0])
    one = camera[[0] * len(poses)]
    return replace(one, c2w=torch.stack(poses))


def side_views(
    portrait: Portrait, planes: Tensor, decoder: TriplaneDecoder, settings: SideSettings
) -> list[Portrait]:
    """Return what planes [3, C, H, W] shall look like from the sides, as N portraits of V²."""
    march = RenderSettings(steps=256, grid=64)
    grid = build_occupancy(planes, decoder, march)

    def look(cameras: Cameras) -> Rendered:
        return render_images(planes, decoder, cameras, 1.0, march, grid)

    front = Front.of(portrait, look(portrait.camera), settings.least_cosine)
    cameras = turned(portrait.camera, list(settings.azimuths), list(settings.elevations))
    cameras = cameras.scaled_to(settings.size, settings.size)
    seen = look(cameras)
    similar, views = settings.similar, []
    for n in range(len(cameras)):
        origins, directions = cameras.image_rays(n)
        points = origins + directions * seen.depth[n].reshape(-1, 1)
        difference, trust = front.carried(points, settings.tolerance)
        mirrored, other = front.carried(points * torch.tensor([-1.0, 1, 1]), settings.tolerance)
        other = other * (1 - trust) * settings.symmetry
        change = trust[:, None] * difference + other[:, None] * mirrored
        if similar.share:
            alike = front.of_similar(points, seen.color[n].reshape(-1, 3), similar)
            change = change + similar.share * (1 - trust - other)[:, None] * alike
        change = float(settings.carry) * change
        solid = (seen.opacity[n].reshape(-1, 1) > 0.9).float()
        color = (seen.color[n].reshape(-1, 3) + solid * change).clamp(0, 1)
        views.append(Portrait(color.view_as(seen.color[n]), seen.opacity[n], cameras[n]))
    return views
