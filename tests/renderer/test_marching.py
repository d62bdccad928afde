"""Samples along rays: their lattice, their cells, and that both implementations agree."""

import math

import pytest
import torch

from renderer.marching import march
from renderer.occupancy import OccupancyGrid
from renderer.plain import intersect_box
from renderer.samples import step_length
from tests.scenes import random_rays

IMPLS = ["reference", "torch", "numba"]


def along_x(*heights: float) -> tuple[torch.Tensor, torch.Tensor]:
    origins = torch.tensor([[-3.0, height, 0.0] for height in heights])
    return origins, torch.tensor([[1.0, 0.0, 0.0]]).repeat(len(heights), 1)


def test_box_entry_and_exit_are_exact_for_axis_rays():
    entry, leave = intersect_box(*along_x(0.0, 0.99, 1.5), near=0.2)
    assert entry[:2].tolist() == [2.0, 2.0] and leave[:2].tolist() == [4.0, 4.0]
    assert leave[2] < entry[2]


def test_entry_from_inside_is_near():
    entry, leave = intersect_box(torch.zeros(1, 3), torch.tensor([[0.0, 0.0, -1.0]]), near=0.2)
    assert entry.item() == pytest.approx(0.2) and leave.item() == pytest.approx(1.0)


@pytest.mark.parametrize("impl", IMPLS)
def test_full_box_gives_the_whole_lattice(impl):
    steps = 100
    samples = march(*along_x(0.0), OccupancyGrid(8), steps=steps, impl=impl)
    step = step_length(steps)
    expected = 2.0 + (torch.arange(steps) + 0.5) * step
    expected = expected[expected < 4.0]
    assert step == pytest.approx(2 * math.sqrt(3) / steps)
    assert torch.allclose(samples.t, expected, atol=1e-5)
    assert samples.offsets.tolist() == [0, len(expected)]


@pytest.mark.parametrize("impl", IMPLS)
def test_jitter_shifts_a_ray_by_its_share_of_a_step(impl):
    jitter = torch.tensor([0.0, 0.75])
    samples = march(*along_x(0.0, 0.0), OccupancyGrid(8), steps=64, jitter=jitter, impl=impl)
    first = samples.t[samples.offsets[:-1]]
    assert torch.allclose(first - 2.0, jitter * step_length(64), atol=1e-6)


@pytest.mark.parametrize("impl", IMPLS)
def test_only_occupied_cells_hold_samples(impl):
    grid = OccupancyGrid(4)
    grid.occupied[:] = False
    grid.occupied[2, 1, 1] = True  # x in [0, 0.5), y and z in [-0.5, 0)
    origins, directions = along_x(-0.25, 0.25)
    origins[:, 2] = -0.25
    samples = march(origins, directions, grid, steps=200, impl=impl)
    assert samples.offsets[2] == samples.offsets[1]  # the second ray passes beside the cell
    x = origins[0, 0] + samples.t
    assert ((x >= 0) & (x < 0.5)).all()
    assert len(samples) == pytest.approx(0.5 / step_length(200), abs=1)


@pytest.mark.parametrize("impl", IMPLS)
def test_empty_grids_misses_and_no_rays(impl):
    empty = OccupancyGrid(5)
    empty.occupied[:] = False
    rays = random_rays(10)
    assert len(march(*rays, empty, steps=64, impl=impl)) == 0
    away = march(rays[0], rays[0] / 3.5, OccupancyGrid(5), steps=64, impl=impl)
    assert len(away) == 0 and away.offsets.tolist() == [0] * 11
    none = march(torch.zeros(0, 3), torch.zeros(0, 3), OccupancyGrid(5), steps=64, impl=impl)
    assert len(none) == 0 and none.offsets.tolist() == [0]


@pytest.mark.parametrize("cells", [1, 7, 8, 33])
@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
def test_kernels_place_the_same_samples(cells, share):
    generator = torch.Generator().manual_seed(cells)
    grid = OccupancyGrid(cells)
    grid.occupied = torch.rand((cells,) * 3, generator=generator) < share
    origins, directions = random_rays(300, seed=cells)
    # Rays along axes and edges of cells are where rounding could differ.
    directions[:3] = torch.eye(3)
    origins[:3] = -3 * torch.eye(3)
    jitter = torch.rand(300, generator=generator)
    plain = march(origins, directions, grid, steps=150, jitter=jitter, impl="reference")
    fast = march(origins, directions, grid, steps=150, jitter=jitter, impl="numba")
    assert torch.equal(fast.offsets, plain.offsets)
    assert torch.equal(fast.ray, plain.ray)
    assert torch.equal(fast.t, plain.t)


def test_rays_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="must be"):
        march(torch.zeros(4, 2), torch.zeros(4, 3), OccupancyGrid(4))
