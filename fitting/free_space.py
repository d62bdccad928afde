"""Emptying the space that silhouettes rule out.

Rays are not marched there while fitting, so pictures can't empty it; whoever renders the triplane
later has no silhouettes and sees what is left. A start from other subjects leaves their hair.

Legend: S points, G cells along one side of the occupancy grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from renderer.decoder import TriplaneDecoder
from renderer.field import query_density

STRETCH = 0.25
"""World units; long enough that the thin fog which a ray across free space would gather counts."""
LOOK_EVERY = 64
"""Steps between looks for cells that are not empty yet."""
LOOK_CELLS = 2**16
"""Cells looked at, at most."""
DENSE = 0.1
"""Density, per world unit, above which a cell is not empty."""


class FreeSpace:
    """Free cells of one subject, and which of them were found dense.

    Few points drawn from all free cells hit what is left in few of them; so half are drawn from
    cells that a look found dense.

    Args:
        hull: cells that may hold the subject, [G, G, G] bool.

    Attributes:
        dense: cells found dense by the last look, [S, 3] integers.
    """

    def __init__(self, hull: Tensor):
        self.size = 2 / hull.shape[0]
        self.cells = torch.nonzero(~hull)
        self.dense = self.cells[:0]

    def loss(
        self,
        planes: Tensor,
        decoder: TriplaneDecoder,
        count: int,
        step: int,
        random: torch.Generator,
    ) -> Tensor:
        """Mean opacity of a short stretch at ``count`` points of free space.

        Args:
            planes: [3, C, H, W].
            step: of the visit; some steps look for dense cells first.
            random: on the CPU.

        Returns:
            Scalar; differentiable to planes and decoder. Zero where no space is free.
        """
        if not len(self.cells):
            return planes.new_zeros(())
        if step % LOOK_EVERY == 0:
            cells = _drawn(self.cells, min(LOOK_CELLS, len(self.cells)), random)
            with torch.no_grad():
                density = query_density(planes, decoder, self._points(cells, random))
            self.dense = cells[density > DENSE]
        half = count // 2 if len(self.dense) else 0
        cells = _drawn(self.cells, count - half, random)
        if half:
            cells = torch.cat([cells, _drawn(self.dense, half, random)])
        density = query_density(planes, decoder, self._points(cells, random))
        return -torch.expm1(-density * STRETCH).mean()

    def _points(self, cells: Tensor, random: torch.Generator) -> Tensor:
        """A random point in each cell, [S, 3]."""
        offset = torch.rand(len(cells), 3, generator=random).to(cells.device)
        return (cells + offset) * self.size - 1


def _drawn(rows: Tensor, count: int, random: torch.Generator) -> Tensor:
    """``count`` random rows, with repeats."""
    return rows[torch.randint(len(rows), (count,), generator=random).to(rows.device)]
