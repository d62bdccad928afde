"""Compositing against closed forms and an independent loop."""

import math

import pytest
import torch

from renderer.compositing import composite, composite_weights
from renderer.samples import Samples


def packed(counts: list[int], step: float = 0.05) -> Samples:
    ray = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    offsets = torch.tensor([0, *counts]).cumsum(0)
    t = 1.0 + step * (torch.arange(sum(counts)) - offsets[ray]).double()
    return Samples(ray, t, offsets, step)


def plain_loop(density, color, samples, background, stop):
    """One ray at a time, front to back, in Python floats."""
    colors, opacities, depths = [], [], []
    for r in range(len(samples.offsets) - 1):
        transmittance, total, opacity, distance = 1.0, [0.0] * 3, 0.0, 0.0
        for s in range(int(samples.offsets[r]), int(samples.offsets[r + 1])):
            if transmittance < stop:
                break
            alpha = 1 - math.exp(-float(density[s]) * samples.step)
            weight = transmittance * alpha
            total = [a + weight * float(b) for a, b in zip(total, color[s], strict=True)]
            opacity += weight
            distance += weight * float(samples.t[s])
            transmittance *= 1 - alpha
        shade = [a + (1 - opacity) * float(b) for a, b in zip(total, background, strict=True)]
        colors.append(shade)
        opacities.append(opacity)
        depths.append(distance / max(opacity, 1e-8))
    return torch.tensor(colors), torch.tensor(opacities), torch.tensor(depths)


@pytest.mark.parametrize("sigma", [0.01, 1.0, 30.0])
def test_slab_of_constant_density(sigma):
    samples = packed([40])
    density = torch.full((40,), sigma, dtype=torch.float64)
    weights = composite_weights(density, samples, stop=0.0)
    assert weights.sum().item() == pytest.approx(1 - math.exp(-sigma * 40 * 0.05), abs=1e-12)


@pytest.mark.parametrize("stop", [0.0, 1e-4, 0.3])
def test_against_a_plain_loop(stop):
    torch.manual_seed(0)
    samples = packed([0, 7, 1, 0, 30, 0])
    density = torch.rand(len(samples), dtype=torch.float64) * 40
    color = torch.rand(len(samples), 3, dtype=torch.float64)
    background = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    result = composite(density, color, samples, background, stop)
    expected = plain_loop(density, color, samples, background, stop)
    for value, truth in zip((result.color, result.opacity, result.depth), expected, strict=True):
        assert torch.allclose(value, truth.double(), atol=1e-6)


def test_a_ray_without_samples_shows_the_background():
    samples = packed([0, 0])
    background = torch.tensor([[0.2, 0.4, 0.6], [1.0, 0.0, 0.0]]).double()
    nothing = torch.zeros(0, 3, dtype=torch.float64)
    result = composite(nothing[:, 0], nothing, samples, background)
    assert torch.equal(result.color, background)
    assert result.opacity.tolist() == [0, 0] and result.depth.tolist() == [0, 0]


def test_nothing_shows_behind_the_early_stop():
    samples = packed([50])
    density = torch.full((50,), 100.0)
    weights = composite_weights(density, samples, stop=1e-2)
    # exp(-5) < 1e-2: the second sample starts below the stop.
    assert (weights > 0).sum() == 1


def test_gradients_against_finite_differences():
    torch.manual_seed(1)
    samples = packed([3, 0, 6])
    density = (torch.rand(9, dtype=torch.float64) * 10).requires_grad_()
    color = torch.rand(9, 3, dtype=torch.float64, requires_grad=True)
    background = torch.rand(3, 3, dtype=torch.float64, requires_grad=True)

    def function(density, color, background):
        result = composite(density, color, samples, background, stop=0.0)
        return result.color, result.opacity, result.depth

    assert torch.autograd.gradcheck(function, (density, color, background))


def test_densities_of_another_length_are_refused():
    with pytest.raises(ValueError, match="density must be"):
        composite_weights(torch.zeros(3), packed([4]))
