"""The fused optimiser step against autograd, torch.optim.Adam and a clamp."""

import pytest
import torch

from renderer.cuda.plane_adam import PlaneAdam, channel_last
from renderer.cuda.planes import texels
from renderer.losses import total_variation
from tests.renderer.cuda.scenes import random_planes, relative

WEIGHTS = {"tv_weight": 0.7, "l1_weight": 0.3, "l2_weight": 0.2}


def test_same_steps_as_adam(host):
    start = random_planes(8, 5, 6)[0]
    start[:, :, 0, 0] = 0  # no sign
    start[:, :, 1, 1] = 0.99
    plain = start.clone().requires_grad_()
    fused = channel_last(start).requires_grad_()
    reference = torch.optim.Adam([plain], lr=0.05, betas=(0.9, 0.99), eps=1e-15)
    optimizer = PlaneAdam(fused, lr=0.05, **WEIGHTS)
    generator = torch.Generator().manual_seed(0)
    for step in range(4):
        target = 6 * random_planes(8, 5, 6, seed=step + 1)[0]
        mask = torch.rand(start.shape, generator=generator) < 0.8
        for planes, chosen in ((plain, reference), (fused, optimizer)):
            for group in chosen.param_groups:
                group["lr"] = 0.05 * 0.9**step
            loss = ((planes - target) * mask).square().mean()
            if chosen is reference:
                loss = loss + WEIGHTS["tv_weight"] * total_variation(planes)
                loss = loss + WEIGHTS["l1_weight"] * planes.abs().mean()
                loss = loss + WEIGHTS["l2_weight"] * planes.square().mean()
            chosen.zero_grad()
            loss.backward()
            chosen.step()
        with torch.no_grad():
            plain.clamp_(-1, 1)
        assert relative(fused, plain) < 1e-5
    assert (plain.abs() == 1).any()
    half = texels(fused)
    assert torch.equal(half[0], fused.detach().permute(0, 2, 3, 1).half())


def test_state_survives_saving(host):
    start = random_planes(4, 3, 3)[0]
    results = []
    for interrupted in (False, True):
        planes = channel_last(start).requires_grad_()
        optimizer = PlaneAdam(planes, lr=0.1, tv_weight=0.1)
        for step in range(4):
            if interrupted and step == 2:
                state, values = optimizer.state_dict(), planes.detach().contiguous()
                planes = channel_last(values).requires_grad_()
                optimizer = PlaneAdam(planes, lr=0.1, tv_weight=0.1)
                optimizer.load_state_dict(state)
            optimizer.zero_grad()
            (planes - 0.3).square().sum().backward()
            optimizer.step()
        results.append(planes.detach())
    assert torch.equal(*results)


def test_other_layouts_are_refused():
    with pytest.raises(ValueError, match="channel_last"):
        PlaneAdam(torch.zeros(3, 8, 4, 4, requires_grad=True), lr=0.1)
    with pytest.raises(ValueError, match="multiple of 4"):
        PlaneAdam(channel_last(torch.zeros(3, 6, 4, 4)).requires_grad_(), lr=0.1)
