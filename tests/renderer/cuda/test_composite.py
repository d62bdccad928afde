"""Compositing kernels against the plain equations, values and gradients."""

import pytest
import torch

from renderer.compositing import composite, composite_weights
from renderer.cuda.compositing import composite_packed, visible_samples
from renderer.cuda.marching import PackedSamples
from renderer.samples import Samples
from tests.renderer.cuda.scenes import relative


def packed_rays(counts: list[int], seed: int = 0) -> Samples:
    """Rays with the given numbers of samples."""
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.tensor([0, *counts]).cumsum(0)
    ray = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    t = 1 + torch.rand(len(ray), generator=generator).cumsum(0) * 0.01
    return Samples(ray, t, offsets, 0.02)


def inputs(samples: Samples, strength: float, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    density = torch.rand(len(samples), generator=generator) ** 3 * strength
    if len(samples) > 5:
        density[4] = 1e7  # beyond the cap
    color = torch.rand(len(samples), 3, generator=generator)
    return density, color


COUNTS = [0, 1, 31, 32, 33, 0, 100, 64, 7, 0]


@pytest.mark.parametrize("strength", [3.0, 60.0])
@pytest.mark.parametrize("per_ray_background", [False, True])
def test_values_and_gradients(host, strength, per_ray_background):
    samples = packed_rays(COUNTS)
    density, color = inputs(samples, strength)
    background = torch.rand(*([len(COUNTS)] if per_ray_background else []), 3)
    generator = torch.Generator().manual_seed(5)
    cotangents = [torch.randn(len(COUNTS), 3, generator=generator)]
    cotangents += [torch.randn(len(COUNTS), generator=generator) for _ in range(2)]
    results = []
    for kernel in (False, True):
        given = [x.clone().requires_grad_() for x in (density, color, background)]
        if kernel:
            out = composite_packed(given[0], given[1], PackedSamples.packed(samples), given[2])
        else:
            given_double = [x.double() for x in given]
            samples64 = Samples(samples.ray, samples.t.double(), samples.offsets, samples.step)
            out = composite(given_double[0], given_double[1], samples64, given_double[2])
        values = [out.color, out.opacity, out.depth]
        grads = torch.autograd.grad(values, given, [c.to(values[0].dtype) for c in cotangents])
        results.append([*values, *grads])
    for expected, actual in zip(*results, strict=True):
        assert relative(actual, expected) < 2e-5


def test_visible_samples_are_those_with_weight(host):
    samples = packed_rays(COUNTS)
    density, _ = inputs(samples, 200.0)
    weights = composite_weights(density, samples)
    kept = visible_samples(density, PackedSamples.packed(samples))
    assert 0 < len(kept) < len(samples)
    assert set(samples.t[weights > 0].tolist()) <= set(kept.t.tolist())
    for ray in range(len(COUNTS)):
        before = samples.t[samples.offsets[ray] : samples.offsets[ray + 1]]
        after = kept.t[kept.offsets[ray] : kept.offsets[ray + 1]]
        assert torch.equal(before[: len(after)], after)
        assert (kept.ray[kept.offsets[ray] : kept.offsets[ray + 1]] == ray).all()


def test_wrong_shapes_are_refused(host):
    samples = PackedSamples.packed(packed_rays([3, 2]))
    with pytest.raises(ValueError, match="color must be"):
        composite_packed(torch.rand(5), torch.rand(4, 3), samples, torch.ones(3))
