"""Free space is emptied, also where little of it is left full."""

import torch

from captures.multiview import MultiViewSet
from fitting.free_space import LOOK_EVERY, FreeSpace
from fitting.ray_pool import RayPool
from fitting.subject_fit import FitSettings, SubjectFit
from renderer.field import query_density
from runtime.seeds import generator
from tests.scenes import random_decoder, write_spheres

GRID = 32


def density_at(planes, decoder, cells):
    with torch.no_grad():
        return query_density(planes, decoder, (cells + 0.5) * (2 / GRID) - 1)


def test_loss_is_the_mean_opacity_of_free_cells():
    decoder = random_decoder()
    planes = torch.zeros(3, 6, 4, 4)  # one density everywhere
    hull = torch.ones(8, 8, 8, dtype=torch.bool)
    hull[:, :, 2] = False
    density = query_density(planes, decoder, torch.zeros(1, 3))
    loss = FreeSpace(hull).loss(planes, decoder, 10, 0, generator(0))
    torch.testing.assert_close(loss, (1 - torch.exp(-density / 4)).mean())
    hull[:] = True
    assert float(FreeSpace(hull).loss(planes, decoder, 10, 0, generator(0))) == 0


def test_half_of_the_points_go_where_it_is_dense(monkeypatch):
    from fitting import free_space as module

    hull = torch.ones(GRID, GRID, GRID, dtype=torch.bool)
    hull[GRID // 2 :] = False
    queried = []

    def query(planes, decoder, points):
        """Dense in one corner of free space, a 32nd of it."""
        queried.append(points)
        inside = (points[:, 0] > 0.75) & (points[:, 1] > 0.75)
        return torch.where(inside, 1.0, 0.0)

    monkeypatch.setattr(module, "query_density", query)
    space = FreeSpace(hull)
    planes, decoder = torch.zeros(3, 6, 4, 4), random_decoder()
    for step in range(LOOK_EVERY + 1):
        space.loss(planes, decoder, 400, step, generator(0, step))
    looks = [points for points in queried if len(points) != 400]
    assert len(looks) == 2 and len(queried) == LOOK_EVERY + 3
    corners = space.dense.float() * 2 / GRID - 1
    assert len(corners) and bool((corners[:, :2] >= 0.75 - 1e-6).all())
    points = torch.cat([points for points in queried if len(points) == 400])
    assert bool((points[:, 0] >= 0).all())
    share = float(((points[:, 0] > 0.75) & (points[:, 1] > 0.75)).float().mean())
    assert abs(share - (1 + 1 / 32) / 2) < 0.01


def test_the_planes_follow():
    decoder = random_decoder()
    decoder.set_density(20.0)
    hull = torch.zeros(GRID, GRID, GRID, dtype=torch.bool)
    hull[:28] = True
    planes = torch.zeros(3, 6, 16, 16, requires_grad=True)
    space, adam = FreeSpace(hull), torch.optim.Adam([planes], lr=0.05)
    before = density_at(planes, decoder, space.cells)
    for step in range(150):
        adam.zero_grad()
        space.loss(planes, decoder, 200, step, generator(0, step)).backward()
        adam.step()
        planes.data.clamp_(-1, 1)
    after = density_at(planes, decoder, space.cells)
    assert len(space.dense) and float(after.max()) < 0.6 * float(before.min())


def test_the_first_steps_may_march_the_whole_hull(tmp_path):
    """What the start holds empty is sampled while the hull counts as occupied, and not after."""
    rays = RayPool(MultiViewSet(write_spheres(tmp_path / "set")).load("subject_000"))
    start = torch.randn(3, 6, 12, 12, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    for fill_steps in (0, 8):
        settings = FitSettings(rays=64, steps=48, grid=16, grid_every=4, fill_steps=fill_steps)
        fit = SubjectFit("a", rays, start, random_decoder(), settings, seed=0, total=9)
        whole = []
        for _ in range(9):
            fit.step()
            whole.append(bool((fit.grid.occupied == fit.hull).all()))
        assert whole == [fill_steps > 0] * 8 + [False]
