"""The optimiser of planes: plain against autograd and Adam in double, fused against plain."""

import pytest
import torch

from fitting.losses import total_variation
from fitting.plane_adam import PlaneAdam, channel_last

TV, L1, L2 = 0.7, 0.3, 0.2


def random_start(shape=(3, 8, 5, 6), seed=0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 1.8 - 0.9


def pull(planes: torch.Tensor, step: int) -> torch.Tensor:
    """A loss with gradients of several sizes, and none at some values."""
    random = torch.Generator().manual_seed(step)
    target = (torch.randn(planes.shape, generator=random) * 3).to(planes)
    mask = (torch.rand(planes.shape, generator=random) < 0.8).to(planes)
    return ((planes - target) * mask).square().mean()


def run(planes: torch.Tensor, optimizer: torch.optim.Optimizer, steps=range(4)) -> torch.Tensor:
    for step in steps:
        optimizer.param_groups[0]["lr"] = 0.05 * 0.9**step
        optimizer.zero_grad()
        pull(planes, step).backward()
        optimizer.step()
    return planes


def compare_with_plain(impl: str, with_reference: bool, shape=(3, 8, 5, 6)) -> torch.Tensor:
    """The fused planes after some steps, which agree with plain PyTorch's."""
    start = random_start(shape)
    start[:, :, 0, 0] = 0  # no sign
    start[..., -1] = 0.99
    reference = random_start(shape, 1) / 2 if with_reference else None
    weights = {"tv_weight": TV, "l1_weight": L1, "l2_weight": L2, "reference": reference}
    plain = start.clone().requires_grad_()
    run(plain, PlaneAdam(plain, 0.05, **weights, impl="reference"))
    fused = channel_last(start).requires_grad_()
    before = fused.data_ptr()
    run(fused, PlaneAdam(fused, 0.05, **weights, impl=impl))
    assert fused.data_ptr() == before  # exchanged an even number of times
    assert (fused - plain).norm() <= 1e-5 * plain.norm()
    assert (plain.abs() == 1).any()
    return fused


def interrupt(impl: str) -> None:
    """Saved and loaded on the way, the end is the same to the bit."""
    results = []
    for interrupted in (False, True):
        planes = channel_last(random_start()).requires_grad_()
        optimizer = PlaneAdam(planes, 0.1, tv_weight=TV, impl=impl)
        run(planes, optimizer, range(2))
        if interrupted:
            state, values = optimizer.state_dict(), planes.detach().contiguous()
            planes = channel_last(values).requires_grad_()
            optimizer = PlaneAdam(planes, 0.1, tv_weight=TV, impl=impl)
            optimizer.load_state_dict(state)
        results.append(run(planes, optimizer, range(2, 5)).detach())
    assert torch.equal(*results)


@pytest.mark.parametrize("with_reference", [False, True])
def test_plain_steps_are_those_of_adam_in_double(with_reference):
    start, reference = random_start().double(), random_start(seed=1).double() / 2
    exact = start.clone().requires_grad_()
    adam = torch.optim.Adam([exact], lr=0.05, betas=(0.9, 0.99), eps=1e-15)
    for step in range(4):
        adam.param_groups[0]["lr"] = 0.05 * 0.9**step
        offset = exact - reference if with_reference else exact
        loss = pull(exact, step) + TV * total_variation(offset)
        loss = loss + L1 * offset.abs().mean() + L2 * offset.square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            exact.clamp_(-1, 1)
    planes = start.clone().requires_grad_()
    weights = {"tv_weight": TV, "l1_weight": L1, "l2_weight": L2}
    given = reference if with_reference else None
    run(planes, PlaneAdam(planes, 0.05, **weights, reference=given))
    assert torch.allclose(planes, exact, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 8, 5, 6), (3, 3, 7, 7), (3, 1, 1, 4), (3, 2, 16, 1)])
@pytest.mark.parametrize("with_reference", [False, True])
def test_the_cpu_kernel_steps_as_plain(shape, with_reference):
    pytest.importorskip("numba", reason="the CPU kernels need numba")
    if 1 in shape[2:]:
        with_tv = compare_without_variation
    else:
        with_tv = compare_with_plain
    with_tv("numba", with_reference, shape)


def compare_without_variation(impl: str, with_reference: bool, shape) -> None:
    """Along an axis of one texel the mean of no differences is undefined; the rest is not."""
    results = []
    for chosen in ("reference", impl):
        planes = channel_last(random_start(shape)).requires_grad_()
        reference = random_start(shape, 1) if with_reference else None
        optimizer = PlaneAdam(planes, 0.05, l2_weight=L2, reference=reference, impl=chosen)
        results.append(run(planes, optimizer).detach())
    assert torch.allclose(*results, atol=1e-6)


def test_any_number_of_workers_gives_the_same_bits():
    pytest.importorskip("numba", reason="the CPU kernels need numba")
    before, results = torch.get_num_threads(), []
    try:
        for workers in (1, 4):
            torch.set_num_threads(workers)
            planes = channel_last(random_start((3, 5, 9, 8))).requires_grad_()
            results.append(run(planes, PlaneAdam(planes, 0.05, tv_weight=TV)).detach())
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_state_survives_saving():
    interrupt("auto")


def test_what_cannot_be_stepped_is_refused():
    planes = torch.zeros(3, 8, 4, 4, requires_grad=True)
    with pytest.raises(ValueError, match="channel_last"):
        PlaneAdam(planes, lr=0.1, impl="numba")
    with pytest.raises(ValueError, match=r"reference is \[3, 8, 4, 5\]"):
        PlaneAdam(planes, lr=0.1, reference=torch.zeros(3, 8, 4, 5))
