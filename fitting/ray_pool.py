"""Training rays of one subject, drawn mostly where the subject is.

Legend: N views, R rays, H W picture size, G cells along one side of the occupancy grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from captures.cameras import Cameras
from captures.multiview import Views


@dataclass(frozen=True)
class RayBatch:
    """Rays with their true colours.

    Attributes:
        origins, directions: [R, 3].
        rgba: straight alpha, [R, 4] in [0, 1].
    """

    origins: Tensor
    directions: Tensor
    rgba: Tensor

    def target(self, background: Tensor) -> Tensor:
        """Colour over a background [R, 3] or [3]: [R, 3]."""
        alpha = self.rgba[:, 3:]
        return self.rgba[:, :3] * alpha + (1 - alpha) * background


class RayPool:
    """All pixels of a subject's training views.

    Args:
        views: pictures and cameras.
        device: where rays are drawn.
        margin: pixels around the silhouette that still count as near the subject.
    """

    def __init__(self, views: Views, device: torch.device | str = "cpu", margin: int = 3):
        self.images = torch.from_numpy(views.images).to(device)
        self.cameras: Cameras = views.cameras.to(device)
        covered = (self.images[..., 3] > 0).float()
        near = F.max_pool2d(covered[:, None], 2 * margin + 1, stride=1, padding=margin)
        self._near = torch.nonzero(near.flatten() > 0)[:, 0]
        self._hulls: dict[int, Tensor] = {}

    def hull(self, resolution: int) -> Tensor:
        """:func:`visual_hull` of the views, [G, G, G] bool; computed once per resolution."""
        if resolution not in self._hulls:
            alpha = self.images[..., 3]
            self._hulls[resolution] = visual_hull(alpha, self.cameras, resolution)
        return self._hulls[resolution]

    def draw(self, count: int, near_fraction: float, generator: torch.Generator) -> RayBatch:
        """Draw rays through random pixel centres.

        Args:
            count: R.
            near_fraction: share of rays drawn near the silhouette; the rest is drawn from all
                pixels.
            generator: on the CPU, so that every device draws the same rays.
        """
        device = self.images.device
        near = int(round(count * near_fraction)) if len(self._near) else 0
        total = self.images.shape[0] * self.images.shape[1] * self.images.shape[2]
        chosen = torch.randint(len(self._near), (near,), generator=generator).to(device)
        anywhere = torch.randint(total, (count - near,), generator=generator).to(device)
        return self.rays(torch.cat([self._near[chosen], anywhere]))

    def rays(self, pixels: Tensor) -> RayBatch:
        """Rays through the centres of flat pixel indices [R] into [N, H, W]."""
        _, height, width, _ = self.images.shape
        view = pixels // (height * width)
        y, x = pixels % (height * width) // width, pixels % width
        origins, directions = self.cameras.rays(view, x + 0.5, y + 0.5)
        return RayBatch(origins, directions, self.images.view(-1, 4)[pixels].float() / 255)


@torch.no_grad()
def visual_hull(alpha: Tensor, cameras: Cameras, resolution: int) -> Tensor:
    """Cells that no silhouette rules out, [G, G, G] bool, indexed (x, y, z).

    Args:
        alpha: [N, H, W] uint8, 0 where transparent.
        cameras: the N views, on the same device.
        resolution: G.

    A cell is ruled out when, in some view, all of it projects inside the picture and onto fully
    transparent pixels. What no camera sees stays in.
    """
    device = alpha.device
    size = 2 / resolution
    centre = (torch.arange(resolution, device=device) + 0.5) * size - 1
    points = torch.stack(torch.meshgrid(centre, centre, centre, indexing="ij"), -1).reshape(-1, 3)
    kept = torch.ones(points.shape[0], dtype=torch.bool, device=device)
    for index in range(len(cameras)):
        camera = cameras[index]
        remaining = torch.nonzero(kept)[:, 0]
        pixel, depth = camera.project(points[remaining])
        pixel, depth = pixel[0], depth[0]
        # Half a cell's diagonal at the nearest cell, in pixels, covers every cell.
        nearest = depth[depth > 0].min() if (depth > 0).any() else depth.new_tensor(1.0)
        radius = float(camera.fx[0] * (size * 3**0.5 / 2) / nearest)
        margin = int(radius) + 1
        covered = F.max_pool2d(
            (alpha[index] > 0).float()[None, None], 2 * margin + 1, stride=1, padding=margin
        )[0, 0]
        x, y = pixel[:, 0].floor().long(), pixel[:, 1].floor().long()
        inside = (x >= margin) & (x < camera.width - margin) & (depth > 0)
        inside &= (y >= margin) & (y < camera.height - margin)
        empty = covered[y.clamp(0, camera.height - 1), x.clamp(0, camera.width - 1)] == 0
        kept[remaining[inside & empty]] = False
    return kept.reshape(resolution, resolution, resolution)
