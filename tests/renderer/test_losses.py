"""The planes' regularisers: a case by hand, and the one-pass kernel against plain PyTorch."""

import pytest
import torch

from renderer.losses import plane_regularisation, total_variation


def test_total_variation_by_hand():
    planes = torch.zeros(3, 1, 2, 3)
    planes[0, 0] = torch.tensor([[0.0, 1.0, 3.0], [2.0, 2.0, 2.0]])
    down = (2.0**2 + 1.0**2 + 1.0**2) / (3 * 3)
    right = (1.0**2 + 2.0**2) / (3 * 2 * 2)
    assert float(total_variation(planes)) == pytest.approx(down + right)


@pytest.mark.parametrize("weights", [(0.3, 0.0, 0.0), (0.0, 0.2, 0.0), (0.5, 0.1, 0.7)])
@pytest.mark.parametrize("shape", [(3, 5, 7, 7), (3, 2, 16, 16), (3, 1, 1, 4)])
@pytest.mark.parametrize("workers", [1, 3])
def test_one_pass_equals_autograd_in_double(weights, shape, workers):
    if shape[2] == 1 and weights[0]:
        pytest.skip("no differences along an axis of one texel: their mean is undefined")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(workers)
        offset = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
        value = plane_regularisation(offset, *weights, impl="torch")
        (gradient,) = torch.autograd.grad(3 * value, offset)
    finally:
        torch.set_num_threads(before)
    exact = offset.detach().double().requires_grad_()
    expected = plane_regularisation(exact, *weights, impl="reference")
    (expected_gradient,) = torch.autograd.grad(3 * expected, exact)
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert (gradient - expected_gradient).norm() <= 1e-5 * expected_gradient.norm()


def test_zero_offsets_pull_nowhere():
    offset = torch.zeros(3, 2, 8, 8, requires_grad=True)
    value = plane_regularisation(offset, 1.0, 1.0, 1.0)
    value.backward()
    assert float(value.detach()) == 0 and offset.grad is not None and not offset.grad.any()
