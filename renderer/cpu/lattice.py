"""Density on a lattice of points, for occupancy grids.

Legend: G points along each axis, C channels, E columns of the encoded density channels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from renderer.cpu.buffers import CHUNK, Parameters, chunks
from renderer.cpu.chunk import ChunkRunner
from renderer.cpu.kernels import lookup
from renderer.cpu.kernels.lookup import Places
from renderer.cpu.threads import run_workers, shares, worker_count
from renderer.decoder import TriplaneDecoder


@torch.no_grad()
def refresh_density_cpu(
    density: Tensor,
    planes: Tensor,
    decoder: TriplaneDecoder,
    coordinates: list[Tensor],
    decay: float,
    within: Tensor | None = None,
) -> None:
    """``density ← max(decay · density, σ)`` at the lattice's points, in place.

    Args:
        density: [G, G, G] fp32.
        planes: [3, C, H, W] fp32.
        coordinates: of the lattice along x, y and z, [G] each, in [-1, 1].
        within: [G, G, G] bool; the other points are left as they are.
    """
    own = planes[:, decoder.color_channels :].permute(0, 2, 3, 1).contiguous().numpy()
    x, y, z = (c.contiguous().numpy() for c in coordinates)
    # On a lattice each plane contributes a table that the axis it lacks shares.
    tables = [
        lookup.lattice_table(own[p], first, second)
        for p, (first, second) in enumerate(((x, y), (x, z), (y, z)))
    ]
    unused = planes.new_empty(0)
    parameters = Parameters(
        unused.view(0, 0, 0, 0),
        decoder.density_in.weight.detach().contiguous(),
        decoder.density_in.bias.detach(),
        decoder.density_out.weight.detach()[0].contiguous(),
        decoder.density_out.bias.detach()[:1],
        *[unused] * 4,
    )
    nowhere = np.empty(0, np.float32)
    rows = np.empty(0, np.int64)
    places = Places(nowhere, nowhere, 1, rows, nowhere, rows)
    cells = density.view(-1).numpy()
    # Flat indices of the points to look at.
    chosen = np.arange(len(cells)) if within is None else np.flatnonzero(within.numpy())
    workers = worker_count()
    parts = shares(len(chosen), workers)

    def work(index: int) -> None:
        runner = ChunkRunner(parameters, places, decoder.color_channels, decoder.frequencies)
        fresh = np.empty(CHUNK, np.float32)
        features = np.empty((CHUNK, own.shape[3]), np.float32)
        for low, high in chunks(*parts[index]):
            count = high - low
            points = chosen[low:high]
            lookup.lattice_features(*tables, points, features[:count])
            runner.density_of_features(features[:count], 0, fresh[:count])
            cells[points] = np.maximum(cells[points] * np.float32(decay), fresh[:count])

    run_workers(work, workers)
