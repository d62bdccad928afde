"""Occupancy grid: which cells of the box may hold matter, so that rays skip the rest.

Legend: G cells along one side of the box.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from renderer.backend import resolve
from renderer.decoder import TriplaneDecoder


class OccupancyGrid:
    """A G³ grid over the box [-1, 1]³ with a running maximum of density per cell.

    Attributes:
        density: [G, G, G] fp32, indexed (x, y, z).
        occupied: [G, G, G] bool; all True until the first refresh.
    """

    def __init__(self, resolution: int, device: torch.device | str = "cpu"):
        self.resolution = resolution
        self.density = torch.zeros((resolution,) * 3, device=device)
        self.occupied = torch.ones((resolution,) * 3, dtype=torch.bool, device=device)

    @torch.no_grad()
    def refresh(
        self,
        planes: Tensor,
        decoder: TriplaneDecoder,
        *,
        decay: float = 0.95,
        max_threshold: float = 10.0,
        generator: torch.Generator | None = None,
        within: Tensor | None = None,
        impl: str = "auto",
    ) -> None:
        """Update from the current field: ``density ← max(decay · density, σ)``.

        Each cell is probed at one point. A cell is occupied above the smaller of the mean density
        and ``max_threshold`` (instant-ngp).

        Args:
            planes: [3, C, H, W] in [-1, 1].
            decay: per refresh; 0 forgets the past.
            max_threshold: density per world unit.
            generator: draws the probes inside the cells; cell centres without one.
            within: [G, G, G] bool; other cells count as empty, density 0. On a CPU they are not
                probed, which saves their time.
            impl: see :mod:`renderer.backend`.
        """
        coordinates = self._probes(planes, generator)
        backend = resolve(impl, planes, decoder=decoder)
        backend.refresh_density(self.density, planes, decoder, coordinates, decay, within)
        if within is not None:
            self.density.masked_fill_(~within, 0)
        threshold = self.density.mean().clamp(max=max_threshold)
        self.occupied = self.density > threshold

    @torch.no_grad()
    def keep(self, threshold: float, dilation: int = 1) -> None:
        """Set ``occupied`` to cells above a fixed density, grown by ``dilation`` cells."""
        occupied = (self.density > threshold).float()[None, None]
        for _ in range(dilation):
            occupied = F.max_pool3d(occupied, 3, stride=1, padding=1)
        self.occupied = occupied[0, 0] > 0

    def _probes(self, planes: Tensor, generator: torch.Generator | None) -> list[Tensor]:
        """One coordinate per slab and axis: the probes form a jittered lattice."""
        index = torch.arange(self.resolution, dtype=planes.dtype)
        coordinates = []
        for _ in range(3):
            offset = (
                torch.full_like(index, 0.5)
                if generator is None
                else torch.rand(self.resolution, generator=generator).to(index)
            )
            coordinates.append(((index + offset) * (2 / self.resolution) - 1).to(planes.device))
        return coordinates
