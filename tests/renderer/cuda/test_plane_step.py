"""The fused optimiser step of the GPU, run on the host, against the plain one."""

import torch

from fitting.plane_adam import PlaneAdam, channel_last
from renderer.cuda.planes import texels
from tests.fitting.test_plane_adam import compare_with_plain, interrupt
from tests.renderer.cuda.scenes import random_planes


def test_same_steps_as_plain(host):
    fused = compare_with_plain("cuda", with_reference=False)
    assert torch.equal(texels(fused)[0], fused.detach().permute(0, 2, 3, 1).half())


def test_same_steps_as_plain_from_a_reference(host):
    compare_with_plain("cuda", with_reference=True)


def test_state_survives_saving(host):
    interrupt("cuda")


def test_odd_numbers_of_channels_go_the_plain_way(host):
    planes = channel_last(random_planes(6, 4, 4)[0]).requires_grad_()
    before = planes.data_ptr()
    optimizer = PlaneAdam(planes, lr=0.1, impl="cuda")
    planes.grad = torch.ones_like(planes)
    optimizer.step()
    assert planes.data_ptr() == before
