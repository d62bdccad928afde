"""The first guess of coefficients, on portraits of random pixels."""

import pytest
import torch

from likeness.learned.regression import (
    SIDE,
    PixelModel,
    Regression,
    _folded_kernels,
    _solved,
    fit_regression,
    mirrored_pixels,
)

PEOPLE = 24


@pytest.fixture(scope="module")
def people() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels of few dimensions [N, 4 · SIDE²], even [N, 2] and odd [N, 1] coefficients of them."""
    random = torch.Generator().manual_seed(3)
    shape = (4, 4, SIDE, SIDE)
    basis = torch.randn(shape, generator=random)
    symmetric, other = (basis + basis.flip(-1)) / 2, (basis - basis.flip(-1)) / 2
    inside = torch.randn(PEOPLE, 2, 4, generator=random)
    pixels = torch.einsum("nk,kchw->nchw", inside[:, 0], symmetric)
    pixels = pixels + torch.einsum("nk,kchw->nchw", inside[:, 1], other)
    even = torch.stack([inside[:, 0, 0], inside[:, 0, 1].sin()], dim=1)
    return pixels.flatten(1), even, inside[:, 1, :1]


def test_what_is_missed_is_what_leaving_out_misses(people):
    pixels, even, odd = people
    model = PixelModel.of(torch.cat([pixels, mirrored_pixels(pixels)]))
    features, images = (model.features(p).double() for p in (pixels, mirrored_pixels(pixels)))
    for kernel, targets in zip(
        _folded_kernels(features, images, features, 1.0), (even, odd), strict=True
    ):
        kernel = (kernel + kernel.T) / 2
        weights, missed = _solved(kernel, targets.double())
        ridge = kernel @ weights.double() - targets
        assert (weights != 0).any(dim=0).all()
        # Of every target: (K + sI) w = y, so that s is what separates K w from y.
        strength = -(ridge * weights).sum(0) / weights.square().sum(0)
        for column in range(targets.shape[1]):
            kept = torch.arange(1, PEOPLE)
            inner = kernel[1:, 1:] + strength[column] * torch.eye(PEOPLE - 1)
            guess = kernel[0, kept] @ torch.linalg.solve(inner, targets[1:, column].double())
            assert float(targets[0, column] - guess) == pytest.approx(
                float(missed[0, column]), abs=1e-4
            )


def test_mirror_images_have_mirrored_coefficients(people, tmp_path):
    pixels, even, odd = people
    learnt, _ = fit_regression(pixels, even, odd)
    straight = learnt.coefficients(pixels)
    mirrored = learnt.coefficients(mirrored_pixels(pixels))
    assert torch.allclose(straight * torch.tensor([1, 1, -1]), mirrored, atol=1e-4)
    assert (straight[:, 0] - even[:, 0]).square().mean() < 0.1
    assert learnt.spread[0] < 0.5
    learnt.save(tmp_path / "regression.safetensors")
    again = Regression.load(tmp_path / "regression.safetensors", 2, 1)
    assert torch.allclose(again.coefficients(pixels), straight, atol=1e-5)
