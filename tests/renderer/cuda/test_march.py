"""Marching kernels against the plain march: the same samples, bit for bit."""

import pytest
import torch

from renderer.cuda.marching import march_packed, pack_occupancy
from renderer.marching import march
from renderer.occupancy import OccupancyGrid
from tests.renderer.cuda.scenes import ball_grid, random_rays


def plain_march(origins, directions, grid, **settings):
    settings.setdefault("impl", "reference")
    try:
        return march(origins, directions, grid, **settings)
    except TypeError:
        settings.pop("impl")
        return march(origins, directions, grid, **settings)


def test_bits_match_the_cells(host):
    for cells in (5, 8, 12):
        occupied = torch.rand((cells,) * 3, generator=torch.Generator().manual_seed(cells)) < 0.4
        bits = pack_occupancy(occupied)[0]
        flat = occupied.flatten()
        index = torch.arange(flat.numel())
        assert torch.equal((bits[index // 32] >> (index % 32) & 1).bool(), flat)


@pytest.mark.parametrize("count", [1, 37])
@pytest.mark.parametrize("jittered", [False, True])
def test_same_samples_as_the_plain_march(host, count, jittered):
    origins, directions = random_rays(count)
    grid = ball_grid(12)
    jitter = torch.rand(count, generator=torch.Generator().manual_seed(3)) if jittered else None
    expected = plain_march(origins, directions, grid, steps=96, jitter=jitter)
    bits = pack_occupancy(grid.occupied)
    actual = march_packed(origins, directions, bits, 12, steps=96, jitter=jitter).unpacked()
    assert actual.step == expected.step
    assert torch.equal(actual.offsets, expected.offsets)
    assert torch.equal(actual.ray, expected.ray)
    assert torch.equal(actual.t, expected.t)
    assert count == 1 or len(actual) > 50


def test_no_sample_in_an_empty_grid_and_none_without_rays(host):
    origins, directions = random_rays(5)
    grid = OccupancyGrid(8)
    grid.occupied[:] = False
    samples = march_packed(origins, directions, pack_occupancy(grid.occupied), 8, steps=40)
    assert len(samples) == 0 and samples.offsets.tolist() == [0] * 6
    empty = march_packed(origins[:0], directions[:0], pack_occupancy(grid.occupied), 8, steps=40)
    assert len(empty) == 0 and empty.offsets.tolist() == [0]


def test_each_ray_looks_at_its_own_triplane(host):
    origins, directions = random_rays(20)
    grids = [ball_grid(8, 0.9), ball_grid(8, 0.5)]
    bits = pack_occupancy(torch.stack([grid.occupied for grid in grids]))
    triplane = torch.arange(20, dtype=torch.int32) % 2
    actual = march_packed(origins, directions, bits, 8, steps=64, triplane=triplane).unpacked()
    for index, grid in enumerate(grids):
        expected = plain_march(origins, directions, grid, steps=64)
        for ray in range(index, 20, 2):
            mine = actual.t[actual.offsets[ray] : actual.offsets[ray + 1]]
            assert torch.equal(mine, expected.t[expected.offsets[ray] : expected.offsets[ray + 1]])


def test_wrong_shapes_are_refused(host):
    origins, directions = random_rays(4)
    bits = pack_occupancy(torch.ones(2, 4, 4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="directions must be"):
        march_packed(origins, directions[:3], bits[:1], 4)
    with pytest.raises(ValueError, match="which one each ray"):
        march_packed(origins, directions, bits, 4)
