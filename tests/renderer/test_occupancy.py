"""Occupancy: the separable lattice, running maximum, thresholds, dilation."""

import pytest
import torch

from renderer.field import query_density
from renderer.occupancy import OccupancyGrid
from renderer.plain import cell_index, lattice_features
from renderer.triplane import sample_planes
from runtime.seeds import generator
from tests.scenes import constant_decoder, random_decoder


def cell_centres(size: int) -> torch.Tensor:
    axis = (torch.arange(size) + 0.5) * (2 / size) - 1
    return torch.cartesian_prod(axis, axis, axis)


def test_lattice_features_equal_point_look_ups():
    planes = torch.randn(3, 4, 6, 9, dtype=torch.float64)
    x, y, z = (torch.rand(n, dtype=torch.float64) * 2 - 1 for n in (3, 4, 5))
    points = torch.cartesian_prod(x, y, z)
    expected = sample_planes(planes, points).view(3, 4, 5, 4)
    assert torch.allclose(lattice_features(planes, x, y, z), expected, atol=1e-12)


@pytest.mark.parametrize("impl", ["reference", "torch", "numba"])
def test_refresh_probes_cell_centres(impl):
    planes, decoder = torch.rand(3, 6, 7, 7) * 2 - 1, random_decoder()
    grid = OccupancyGrid(9)
    grid.refresh(planes, decoder, decay=0.0, impl=impl)
    expected = query_density(planes, decoder, cell_centres(9), impl="reference").view(9, 9, 9)
    assert torch.allclose(grid.density, expected, rtol=1e-5)
    assert torch.equal(grid.occupied, grid.density > grid.density.mean().clamp(max=10.0))


@pytest.mark.parametrize("impl", ["reference", "torch", "numba"])
def test_refresh_keeps_a_decaying_maximum(impl):
    planes = torch.zeros(3, 6, 4, 4)
    grid = OccupancyGrid(5)
    grid.refresh(planes, constant_decoder(8.0), impl=impl)
    grid.refresh(planes, constant_decoder(1.0), decay=0.5, impl=impl)
    assert torch.allclose(grid.density, torch.full((5, 5, 5), 4.0))
    grid.refresh(planes, constant_decoder(1.0), decay=0.1, impl=impl)
    assert torch.allclose(grid.density, torch.full((5, 5, 5), 1.0))


def test_jittered_probes_are_the_same_for_both():
    planes, decoder = torch.rand(3, 6, 7, 7) * 2 - 1, random_decoder()
    grids = [OccupancyGrid(12), OccupancyGrid(12)]
    for grid, impl in zip(grids, ("reference", "numba"), strict=True):
        grid.refresh(planes, decoder, generator=generator(3), impl=impl)
    assert torch.allclose(grids[0].density, grids[1].density, rtol=1e-5)
    assert not torch.equal(grids[0].density.mean(), OccupancyGrid(12).density.mean())


@pytest.mark.parametrize("impl", ["reference", "torch", "numba"])
def test_cells_that_are_ruled_out_stay_empty(impl):
    planes, decoder = torch.rand(3, 6, 7, 7) * 2 - 1, random_decoder()
    whole, part = OccupancyGrid(9), OccupancyGrid(9)
    part.density.fill_(50.0)
    within = torch.rand(9, 9, 9) < 0.3
    whole.refresh(planes, decoder, impl=impl)
    part.refresh(planes, decoder, decay=0.0, within=within, impl=impl)
    assert torch.equal(part.density, torch.where(within, whole.density, 0.0))
    assert not part.occupied[~within].any()


def test_keep_dilates_by_cells():
    grid = OccupancyGrid(7)
    grid.density[3, 3, 3] = 1.0
    grid.keep(0.5, dilation=0)
    assert grid.occupied.sum() == 1
    grid.keep(0.5, dilation=2)
    assert grid.occupied.sum() == 125 and grid.occupied[1:6, 1:6, 1:6].all()


def test_points_find_their_cells():
    points = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0], [0.01, -0.49, 0.51]])
    expected = [0, 63, (2 * 4 + 1) * 4 + 3]
    assert cell_index(points, 4).tolist() == expected
