"""Whole rays and the occupancy grid on the kernels, against the plain renderer."""

import pytest
import torch

from renderer.occupancy import OccupancyGrid
from renderer.render import RenderSettings, render_rays
from tests.renderer.cuda.scenes import (
    ball_grid,
    random_decoder,
    random_planes,
    random_rays,
    relative,
)

TOLERANCE = 1e-2
# Some samples' ReLUs are decided the other way by half precision; see scenes.decided.
GRADIENT_TOLERANCE = 5e-2
SETTINGS = RenderSettings(steps=48, grid=12)


def plain(planes, decoder, grid, origins, directions, background, jitter=None):
    return render_rays(
        planes, decoder, grid, origins, directions, background, SETTINGS, jitter, impl="reference"
    )


def on_kernels(planes, decoder, grid, origins, directions, background, jitter=None):
    return render_rays(
        planes, decoder, grid, origins, directions, background, SETTINGS, jitter, impl="cuda"
    )


def test_values_and_gradients(host):
    planes = random_planes(16, 8, 11)[0]
    decoder = random_decoder(16, 12, 64)
    grid = ball_grid(12, 0.9)
    origins, directions = random_rays(33)
    generator = torch.Generator().manual_seed(2)
    jitter = torch.rand(33, generator=generator)
    background = torch.rand(33, 3, generator=generator)
    cotangents = [torch.randn(33, 3, generator=generator)]
    cotangents += [torch.randn(33, generator=generator) for _ in range(2)]
    results = []
    for render in (plain, on_kernels):
        variable = planes.clone().requires_grad_()
        behind = background.clone().requires_grad_()
        out = render(variable, decoder, grid, origins, directions, behind, jitter)
        values = [out.color, out.opacity, out.depth]
        wanted = [variable, behind, *decoder.parameters()]
        results.append([*values, *torch.autograd.grad(values, wanted, cotangents)])
    assert results[0][1].max() > 0.5 and results[0][1].min() == 0
    for index, (want, have) in enumerate(zip(*results, strict=True)):
        assert relative(have, want) < (TOLERANCE if index < 3 else GRADIENT_TOLERANCE)


def test_several_triplanes_in_one_call(host):
    planes = random_planes(16, 8, 8, batch=2)
    decoder = random_decoder(16, 12, 64).requires_grad_(False)
    grids = [ball_grid(12, 0.9), ball_grid(12, 0.6)]
    rays = [random_rays(12, seed) for seed in (0, 1)]
    origins, directions = (torch.stack(parts) for parts in zip(*rays, strict=True))
    results = []
    for render in (plain, on_kernels):
        variable = planes.clone().requires_grad_()
        out = render(variable, decoder, grids, origins, directions, 0.5)
        loss = (out.color * torch.arange(1, 73.0).view(2, 12, 3)).sum()
        results.append([out.color, out.opacity, *torch.autograd.grad(loss, variable)])
    for index, (want, have) in enumerate(zip(*results, strict=True)):
        assert relative(have, want) < (TOLERANCE if index < 2 else GRADIENT_TOLERANCE)


@pytest.mark.parametrize("case", ["empty grid", "every ray misses", "no rays"])
def test_only_background(host, case):
    planes = random_planes(16, 8, 8)[0].requires_grad_()
    decoder = random_decoder(16, 12, 64)
    grid = ball_grid(12)
    origins, directions = random_rays(6)
    if case == "empty grid":
        grid.occupied[:] = False
    elif case == "every ray misses":
        origins, directions = 5 * directions, directions
    else:
        origins, directions = origins[:0], directions[:0]
    out = on_kernels(planes, decoder, grid, origins, directions, 0.25)
    assert (out.color == 0.25).all() and (out.opacity == 0).all() and (out.depth == 0).all()
    (grad,) = torch.autograd.grad(out.color.sum(), planes)
    assert (grad == 0).all()


def test_refresh_of_the_occupancy_grid(host):
    planes = random_planes(16, 8, 8)[0]
    decoder = random_decoder(16, 12, 64)
    grids = [OccupancyGrid(6), OccupancyGrid(6)]
    past = torch.rand(6, 6, 6, generator=torch.Generator().manual_seed(4)) * 300
    for grid, impl in zip(grids, ("reference", "cuda"), strict=True):
        grid.density = past.clone()
        generator = torch.Generator().manual_seed(1)
        grid.refresh(planes, decoder, decay=0.9, generator=generator, impl=impl)
    assert relative(grids[1].density, grids[0].density) < TOLERANCE
    assert (grids[0].density == past * 0.9).any() and (grids[0].density > past).any()
