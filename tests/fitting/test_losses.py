"""The planes' regularisers, by hand."""

import pytest
import torch

from fitting.losses import plane_regularisation, total_variation


def hand_made() -> torch.Tensor:
    planes = torch.zeros(3, 1, 2, 3)
    planes[0, 0] = torch.tensor([[0.0, 1.0, -3.0], [2.0, 2.0, 2.0]])
    return planes


DOWN = (2.0**2 + 1.0**2 + 5.0**2) / (3 * 3)
RIGHT = (1.0**2 + 4.0**2) / (3 * 2 * 2)


def test_total_variation():
    assert float(total_variation(hand_made())) == pytest.approx(DOWN + RIGHT)


def test_the_weighted_sum():
    value = plane_regularisation(hand_made(), 0.5, 0.1, 0.7)
    expected = 0.5 * (DOWN + RIGHT) + 0.1 * 10 / 18 + 0.7 * (1 + 9 + 3 * 4) / 18
    assert float(value) == pytest.approx(expected)


def test_zero_offsets_pull_nowhere():
    offset = torch.zeros(3, 2, 8, 8, requires_grad=True)
    value = plane_regularisation(offset, 1.0, 1.0, 1.0)
    value.backward()
    assert float(value.detach()) == 0 and offset.grad is not None and not offset.grad.any()
