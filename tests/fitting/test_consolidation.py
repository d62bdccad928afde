"""The consolidation penalty and Fisher estimate against closed forms."""

import torch
from torch import nn

from fitting.consolidation import (
    Consolidation,
    accumulate,
    consolidate,
    estimate_importance,
)


def linear_model() -> nn.Linear:
    model = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.5, -1.0, 2.0]]))
    return model


def test_penalty_value_and_gradient():
    model = linear_model()
    importance = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
    anchor = torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64)
    penalty = Consolidation(importance, anchor).penalty(model)
    assert torch.isclose(penalty, torch.tensor(1 * 0.25 + 2 * 4.0, dtype=torch.float64))
    penalty.backward()
    difference = model.weight.detach()[0] - anchor
    assert model.weight.grad is not None
    torch.testing.assert_close(model.weight.grad[0], 2 * importance * difference)


def test_importance_of_linear_regression_is_noise_variance_times_second_moment():
    # For y = wᵀx + ε, ε ~ N(0, s²) and loss ½(wᵀx − y)² on one sample, the gradient is −εx, so
    # the diagonal of E[g gᵀ] is s²·E[x²].
    torch.manual_seed(0)
    model, scale, noise = linear_model(), torch.tensor([0.5, 1.0, 2.0]).double(), 0.3

    def losses(batches: int):
        for _ in range(batches):
            x = torch.randn(1, 3, dtype=torch.float64) * scale
            y = x @ model.weight.detach().T + noise * torch.randn(1, 1, dtype=torch.float64)
            yield 0.5 * (model(x) - y).square().mean()

    expected = noise**2 * scale.square()
    few = estimate_importance(model, losses(8))
    many = estimate_importance(model, losses(20000))
    torch.testing.assert_close(many, expected, rtol=0.05, atol=0)
    assert (many - expected).norm() < (few - expected).norm()


def test_importance_of_an_unused_parameter_is_zero_and_anchor_is_a_copy():
    model = nn.Sequential(nn.Linear(2, 1), nn.Linear(2, 1))
    x = torch.randn(4, 2)
    pair = consolidate(model, [model[0](x).square().mean()])
    assert pair.importance[:3].gt(0).all() and pair.importance[3:].eq(0).all()
    before = pair.anchor.clone()
    with torch.no_grad():
        model[0].weight.add_(1.0)
    torch.testing.assert_close(pair.anchor, before)
    assert pair.penalty(model) > 0


def test_more_batches_make_the_estimate_stable_as_one_over_their_root():
    """The error of a mean of k independent squares falls as 1 over √k."""
    torch.manual_seed(1)
    model = linear_model()

    def error(batches: int) -> float:
        def losses():
            for _ in range(batches):
                x = torch.randn(1, 3, dtype=torch.float64)
                y = x @ model.weight.detach().T + 0.3 * torch.randn(1, 1, dtype=torch.float64)
                yield 0.5 * (model(x) - y).square().mean()

        # E[g²] = s² for every weight here, and Var[g²] = (9 - 1) s⁴.
        return estimate_importance(model, losses()).div(0.3**2).sub(1).square().mean().item()

    few = sum(error(8) for _ in range(60)) / 60
    many = sum(error(128) for _ in range(20)) / 20
    assert 0.7 < few < 1.4 and 0.7 < many * 128 / 8 < 1.4


def test_online_consolidation_is_a_decaying_sum_anchored_at_the_last_weights():
    model = linear_model()
    first = accumulate(None, torch.tensor([1.0, 2.0, 0.0]).double(), model, 0.5)
    assert first.penalty(model) == 0
    with torch.no_grad():
        model.weight.add_(1.0)
    assert first.penalty(model).item() == 3.0
    second = accumulate(first, torch.tensor([0.0, 4.0, 8.0]).double(), model, 0.5)
    assert second.importance.tolist() == [0.5, 5.0, 8.0]
    assert second.penalty(model) == 0
