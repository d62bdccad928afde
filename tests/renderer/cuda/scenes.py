"""Small random inputs and comparisons shared by the kernels' tests."""

import math

import torch
from torch import Tensor

from renderer.decoder import TriplaneDecoder
from renderer.occupancy import OccupancyGrid


def random_rays(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Origins and unit directions: most cross the box, some miss it, some start inside."""
    generator = torch.Generator().manual_seed(seed)
    origins = torch.randn(count, 3, generator=generator)
    origins = 3 * origins / origins.norm(dim=1, keepdim=True)
    origins[::7] *= 0.2  # inside the box
    targets = torch.rand(count, 3, generator=generator) * 2.4 - 1.2
    directions = targets - origins
    directions[3::5] = -directions[3::5]  # away from it
    if count > 2:
        directions[2] = torch.tensor([1.0, 0.0, 0.0])  # exactly along an axis
        origins[2] = torch.tensor([-2.0, 0.1, 0.2])
    return origins, directions / directions.norm(dim=1, keepdim=True)


def ball_grid(cells: int, radius: float = 0.7) -> OccupancyGrid:
    """Occupied inside a ball, with a random half of the cells knocked out."""
    grid = OccupancyGrid(cells)
    axis = (torch.arange(cells) + 0.5) * (2 / cells) - 1
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    keep = torch.rand(grid.occupied.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    grid.occupied = ((x**2 + y**2 + z**2) < radius**2) & keep
    return grid


def random_decoder(channels: int, color_channels: int, hidden: int, seed=0) -> TriplaneDecoder:
    """A decoder whose densities and colours vary over the box, some densities being high."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        decoder = TriplaneDecoder(channels, color_channels, hidden)
    with torch.no_grad():
        decoder.density_out.weight[0] *= 6
        decoder.density_out.bias[0] = 0.5
        decoder.color_out.weight *= 8
        decoder.color_in.weight *= 1.5
    return decoder


def random_planes(channels: int, height: int, width: int, batch: int = 1, seed: int = 0) -> Tensor:
    """[B, 3, C, H, W] in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, channels, height, width, generator=generator) * 2 - 1


@torch.no_grad()
def decided(
    decoder: TriplaneDecoder, features: Tensor, directions: Tensor, margin: float = 4e-3
) -> Tensor:
    """Which samples [S] have no ReLU so near zero that half precision may decide it the other way.

    A rounding error of ε moves a share of about ε of all units across zero, and random gradients by
    √ε of their norm: 2 % in half precision, however right the kernel. Where all units are decided,
    gradients agree as closely as values do.
    """
    inputs = []
    hooks = [
        layer.register_forward_hook(lambda module, given, out: inputs.append(out))
        for layer in (decoder.color_in, decoder.color_hidden)
    ]
    decoder(features, directions)
    for hook in hooks:
        hook.remove()
    clear = [x.abs().amin(1) > margin * x.square().mean(1).sqrt() for x in inputs]
    return clear[0] & clear[1]


def relative(actual: Tensor, expected: Tensor) -> float:
    """‖actual − expected‖ / ‖expected‖, and infinite where actual is not finite."""
    actual, expected = actual.detach().double().cpu(), expected.detach().double().cpu()
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    if not torch.isfinite(actual).all():
        return math.inf
    return float((actual - expected).norm() / expected.norm().clamp(min=1e-12))
