"""Metrics against closed forms and another implementation."""

import math

import pytest
import torch

from renderer.metrics import psnr, ssim


def test_psnr_of_a_known_difference():
    a = torch.rand(2, 4, 5, 3) * 0.5
    assert psnr(a, a + 0.1).tolist() == pytest.approx([20.0, 20.0], abs=1e-4)
    assert psnr(a, a).tolist() == [math.inf, math.inf]


def test_psnr_is_taken_per_picture():
    a = torch.zeros(2, 4, 4, 3)
    b = torch.stack([torch.full((4, 4, 3), 0.1), torch.full((4, 4, 3), 0.01)])
    assert psnr(a, b).tolist() == pytest.approx([20.0, 40.0], abs=1e-4)


def test_ssim_of_constants_has_a_closed_form():
    a, b = torch.full((1, 16, 16, 3), 0.2), torch.full((1, 16, 16, 3), 0.6)
    expected = (2 * 0.2 * 0.6 + 0.01**2) / (0.2**2 + 0.6**2 + 0.01**2)
    assert ssim(a, b).item() == pytest.approx(expected, rel=1e-5)


def test_ssim_against_another_implementation():
    metrics = pytest.importorskip("skimage.metrics")
    a = torch.rand(20, 24, 3, generator=torch.Generator().manual_seed(0)).double()
    b = (a + 0.1 * torch.randn(20, 24, 3, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    _, full = metrics.structural_similarity(
        a.numpy(), b.numpy(), channel_axis=2, data_range=1.0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    inside = full[5:-5, 5:-5].mean()
    assert ssim(a[None], b[None]).item() == pytest.approx(inside, abs=1e-6)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="must share"):
        psnr(torch.zeros(4, 4, 3), torch.zeros(4, 5, 3))
    with pytest.raises(ValueError, match="11 pixels"):
        ssim(torch.zeros(8, 8, 3), torch.zeros(8, 8, 3))
