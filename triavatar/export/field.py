"""The field of one avatar as exports ask it: density at points, and what rays meet.

Legend: S points, R rays, K steps along a ray.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from renderer.compositing import Rendered
from renderer.decoder import TriplaneDecoder
from renderer.field import query_density
from renderer.occupancy import OccupancyGrid
from renderer.render import RenderSettings, build_occupancy, render_rays
from runtime.errors import UserError

HALF = 0.6931472  # optical depth ln 2: half of the light passes


@dataclass(frozen=True)
class Field:
    """A triplane with its decoder and occupied space; nothing here keeps gradients.

    Attributes:
        planes: [3, C, H, W].
        decoder: on the same device.
        grid: occupied cells.
        settings: how rays are marched.
    """

    planes: Tensor
    decoder: TriplaneDecoder
    grid: OccupancyGrid
    settings: RenderSettings

    @classmethod
    def of(cls, planes: Tensor, decoder: TriplaneDecoder, settings: RenderSettings) -> Field:
        """Find the occupied space of a triplane.

        Raises:
            UserError: nothing in it is dense enough to be seen.
        """
        grid = build_occupancy(planes, decoder, settings)
        if not grid.occupied.any():
            raise UserError("the avatar is empty (no density anywhere); fit or generate it again.")
        return cls(planes, decoder, grid, settings)

    @torch.no_grad()
    def density(self, points: Tensor, chunk: int = 2**20) -> Tensor:
        """Density per world unit at points [S, 3], [S]; 0 outside the box."""
        parts = [query_density(self.planes, self.decoder, p) for p in points.split(chunk)]
        found = torch.cat(parts) if parts else points.new_zeros(0)
        return torch.where((points.abs() <= 1).all(dim=1), found, 0.0)

    @torch.no_grad()
    def look(
        self,
        origins: Tensor,
        directions: Tensor,
        background: float = 0.0,
        near: float | None = None,
        chunk: int = 2**16,
    ) -> Rendered:
        """What rays [R, 3] see, composited on a grey; see :func:`renderer.render.render_rays`."""
        settings = self.settings
        if near is not None:
            settings = RenderSettings(**{**vars(settings), "near": near})
        parts = [
            render_rays(self.planes, self.decoder, self.grid, o, d, background, settings)
            for o, d in zip(origins.split(chunk), directions.split(chunk), strict=True)
        ]
        return Rendered(
            torch.cat([p.color for p in parts]),
            torch.cat([p.opacity for p in parts]),
            torch.cat([p.depth for p in parts]),
        )

    def half_depth(
        self, origins: Tensor, directions: Tensor, start: Tensor, reach: float, steps: int = 64
    ) -> tuple[Tensor, Tensor]:
        """Return where rays have lost half of their light, within a stretch of them.

        Args:
            origins, directions: [R, 3].
            start: distance at which the stretch begins, [R].
            reach: its length in world units.
            steps: samples along it.

        Returns:
            Distance [R] and density there per world unit [R]; NaN where less than half is lost.
        """
        spacing = reach / steps
        along = start[:, None] + (torch.arange(steps).to(start) + 0.5) * spacing
        points = origins[:, None] + along[..., None] * directions[:, None]
        density = self.density(points.reshape(-1, 3)).reshape(along.shape)
        depth = density.cumsum(dim=1) * spacing
        reached = depth >= HALF
        index = reached.float().argmax(dim=1, keepdim=True)
        here = density.gather(1, index)[:, 0]
        # Within the step, light falls off at the step's own density.
        excess = (depth.gather(1, index)[:, 0] - HALF) / here.clamp(min=1e-8)
        distance = along.gather(1, index)[:, 0] + 0.5 * spacing - excess
        found = reached.any(dim=1)
        nothing = torch.full_like(distance, torch.nan)
        return torch.where(found, distance, nothing), torch.where(found, here, nothing)

    def normals(self, points: Tensor, width: float = 0.012) -> Tensor:
        """Unit normals out of the matter at points [S, 3]: down the gradient of log density.

        Args:
            width: distance over which the density is compared, world units.

        Returns:
            [S, 3]; zero where the density does not change.
        """
        offsets = torch.eye(3).to(points) * width
        around = torch.stack([points + sign * o for o in offsets for sign in (-1, 1)])
        log = self.density(around.reshape(-1, 3)).clamp(min=1e-3).log().reshape(3, 2, -1)
        return F.normalize((log[:, 0] - log[:, 1]).T, dim=1)
