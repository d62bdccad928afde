"""The surface that a portrait shows: its normals, and what is known of its points.

Legend: S side of the portrait in pixels, R points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from captures.cameras import Cameras
from likeness.portrait.portrait import Portrait
from likeness.settings import SimilarSettings
from renderer.samples import Rendered
from runtime.errors import UserError


@dataclass(frozen=True)
class Front:
    """The surface that a portrait's camera sees of planes, and how the portrait differs.

    Attributes:
        camera: the portrait's.
        difference: [S, S, 3], portrait minus rendering.
        distance: [S, S] from the camera to the surface.
        trust: [S, S] in [0, 1]: 1 where both show a solid surface that faces the camera.
        color: [S, S, 3] of the rendering.
    """

    camera: Cameras
    difference: Tensor
    distance: Tensor
    trust: Tensor
    color: Tensor

    @classmethod
    def of(cls, portrait: Portrait, rendered: Rendered, least_cosine: float) -> Front:
        """Compare a portrait with one rendering from its camera, [1, S, S, …]."""
        solid = (rendered.opacity[0] > 0.9) & (portrait.alpha > 0.95)
        solid = F.max_pool2d(-solid.float()[None, None], 3, 1, 1)[0, 0] == -1
        cosine = facing(portrait.camera, rendered.depth[0])
        trust = ((cosine - least_cosine) / 0.3).clamp(0, 1) * solid
        color = rendered.color[0]
        return cls(portrait.camera, portrait.color - color, rendered.depth[0], trust, color)

    def carried(self, points: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
        """Look up world points.

        Args:
            points: [R, 3].
            tolerance: how far behind the surface a point may lie and still be seen.

        Returns:
            Differences [R, 3] and trust [R], 0 where the portrait doesn't show the point.
        """
        image, depth = self.camera.project(points)
        size = torch.tensor([self.camera.width, self.camera.height])
        grid = (image[0] / size * 2 - 1)[None, None]
        maps = torch.cat([self.difference, self.distance[..., None], self.trust[..., None]], dim=-1)
        found = F.grid_sample(
            maps.permute(2, 0, 1)[None], grid, padding_mode="border", align_corners=False
        )[0, :, 0].T
        distance = (points - self.camera.c2w[0, :3, 3]).norm(dim=-1)
        inside = (grid[0, 0].abs() < 1).all(dim=-1) & (depth[0] > 0)
        hidden = (distance - found[:, 3]).abs() / tolerance
        return found[:, :3], found[:, 4] * (1 - hidden).clamp(min=0) * inside

    def of_similar(self, points: Tensor, colors: Tensor, settings: SimilarSettings) -> Tensor:
        """Guess differences where the portrait is silent: those of what looks alike and is near.

        Hair that is redder in front than it was thought is so behind, too.

        Args:
            points: [R, 3].
            colors: [R, 3] of the planes there.

        Returns:
            Differences [R, 3]; none where nothing in the portrait looks alike.
        """
        trusted = (self.trust.flatten() > 0.5).nonzero()[:, 0]
        trusted = trusted[:: max(len(trusted) // settings.samples, 1)]
        origins, directions = self.camera.image_rays(0)
        distance = self.distance.reshape(-1, 1)
        places = (origins + directions * distance)[trusted] / settings.reach
        known = torch.cat([places, self.color.view(-1, 3)[trusted] / settings.likeness], dim=1)
        asked = torch.cat([points / settings.reach, colors / settings.likeness], dim=1)
        difference = self.difference.view(-1, 3)[trusted]
        found = []
        for part in asked.split(4096):
            weight = torch.exp(-torch.cdist(part, known).square() / 2)
            total = weight.sum(dim=1, keepdim=True) + settings.doubt * settings.samples
            found.append(weight @ difference / total)
        return torch.cat(found)


def normals(camera: Cameras, distance: Tensor) -> Tensor:
    """Unit normals [S, S, 3] towards the camera, of the surface at distances [S, S]."""
    origins, directions = camera.image_rays(0)
    points = (origins + directions * distance.reshape(-1, 1)).view(*distance.shape, 3)
    across = F.pad(points[:, 2:] - points[:, :-2], (0, 0, 1, 1))
    down = F.pad(points[2:] - points[:-2], (0, 0, 0, 0, 1, 1))
    normal = F.normalize(torch.linalg.cross(across, down), dim=-1)
    outwards = -(normal * directions.view_as(normal)).sum(-1, keepdim=True).sign()
    return normal * outwards


def facing(camera: Cameras, distance: Tensor) -> Tensor:
    """Cosine between the surface's normal and the way back to the camera, [S, S]."""
    _, directions = camera.image_rays(0)
    normal = normals(camera, distance)
    return -(normal * directions.view_as(normal)).sum(-1)


def silhouette_hull(portrait: Portrait, space: Tensor) -> Tensor:
    """Return the cells of ``space`` [G, G, G] that the portrait doesn't show to be empty.

    A cell is empty where its centre, and a margin of one cell around it, falls on transparency.

    Raises:
        UserError: nothing is left of space.
    """
    cells = space.nonzero()
    size = 2 / space.shape[0]
    image, depth = portrait.camera.project((cells + 0.5) * size - 1)
    wide = math.ceil(float(portrait.camera.fx[0] * size / depth[0].clamp(min=size).mean()))
    margin = min(wide, portrait.size // 2)
    near = F.max_pool2d(portrait.alpha[None, None], 2 * margin + 1, 1, margin)
    grid = (image / portrait.size * 2 - 1)[None]
    seen = F.grid_sample(near, grid, padding_mode="border", align_corners=False)[0, 0, 0]
    hull = torch.zeros_like(space)
    hull[tuple(cells[seen > 0.02].T)] = True
    if not hull.any():
        raise UserError(
            "no place in space lies within the person's outline in every picture; check their "
            "cameras, and that all show the person."
        )
    return hull
