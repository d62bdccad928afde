"""Occupancy grid: which cells of the box may hold matter, so that rays skip the rest.

Legend: G cells along one side of the box, S points.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from renderer.backend import choose, uses_cpu_kernels
from renderer.decoder import TriplaneDecoder
from renderer.triplane import PLANE_AXES, check_planes


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

    def cells(self, points: Tensor) -> Tensor:
        """Flat cell index of points [S, 3] in [-1, 1], [S] int64."""
        index = ((points + 1) * (self.resolution / 2)).long().clamp_(0, self.resolution - 1)
        return (index[:, 0] * self.resolution + index[:, 1]) * self.resolution + index[:, 2]

    def contains(self, points: Tensor) -> Tensor:
        """Whether each point [S, 3] lies in an occupied cell, [S] bool."""
        return self.occupied.view(-1)[self.cells(points)]

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
        chosen = choose(impl, planes, decoder=decoder)
        if chosen == "cuda":
            from renderer.cuda import ops

            ops.refresh_density(self.density, planes, decoder, coordinates, decay)
        elif chosen == "torch" and uses_cpu_kernels(planes, self.density, decoder=decoder):
            from renderer.cpu.lattice import refresh_density_cpu

            refresh_density_cpu(self.density, planes, decoder, coordinates, decay, within)
        else:
            self._probe_slabs(planes, decoder, coordinates, decay)
        if within is not None:
            self.density.masked_fill_(~within, 0)
        threshold = self.density.mean().clamp(max=max_threshold)
        self.occupied = self.density > threshold

    def _probe_slabs(
        self, planes: Tensor, decoder: TriplaneDecoder, coordinates: list[Tensor], decay: float
    ) -> None:
        for start in range(0, self.resolution, self._slab()):
            stop = start + self._slab()
            features = lattice_features(
                planes, coordinates[0][start:stop], coordinates[1], coordinates[2]
            )
            density = decoder.density(features.reshape(-1, features.shape[-1]))
            density = density.reshape(features.shape[:3]).float()
            self.density[start:stop] = torch.maximum(self.density[start:stop] * decay, density)

    @torch.no_grad()
    def keep(self, threshold: float, dilation: int = 1) -> None:
        """Set ``occupied`` to cells above a fixed density, grown by ``dilation`` cells."""
        occupied = (self.density > threshold).float()[None, None]
        for _ in range(dilation):
            occupied = F.max_pool3d(occupied, 3, stride=1, padding=1)
        self.occupied = occupied[0, 0] > 0

    def _slab(self) -> int:
        # About 2¹⁸ probes at a time: large enough for full speed, small enough for any memory.
        return max(1, 2**18 // self.resolution**2)

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


def lattice_features(planes: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Features on the lattice x × y × z, [X, Y, Z, C].

    Equal to sampling every lattice point, at the cost of three small plane look-ups: on a
    lattice each plane contributes a 2D table that broadcasts along the axis it lacks.

    Args:
        planes: one triplane [3, C, H, W].
        x, y, z: coordinates in [-1, 1], [X], [Y], [Z].
    """
    check_planes(planes, batched=False)
    axes = (x, y, z)
    total: Tensor | None = None
    for plane, (along_w, along_h) in zip(planes, PLANE_AXES, strict=True):
        first, second = axes[along_w], axes[along_h]
        grid = torch.stack(torch.meshgrid(first, second, indexing="ij"), dim=-1)[None]
        table = F.grid_sample(
            plane[None], grid, mode="bilinear", padding_mode="border", align_corners=True
        )[0]  # [C, first, second]
        missing = ({0, 1, 2} - {along_w, along_h}).pop()
        table = table.permute(1, 2, 0).unsqueeze(missing)
        total = table if total is None else total + table
    assert total is not None
    return total / 3
