"""Seeds, devices and launching."""

import numpy as np
import pytest
import torch

from runtime.devices import select_device
from runtime.errors import UserError
from runtime.launch import make_accelerator
from runtime.seeds import generator, numpy_generator, seed_of


def test_streams_depend_on_the_key_alone():
    a = torch.randn(4, generator=generator(0, "rays", 3, 1))
    torch.manual_seed(5)
    assert torch.equal(a, torch.randn(4, generator=generator(0, "rays", 3, 1)))
    for other in ((1, "rays", 3, 1), (0, "noise", 3, 1), (0, "rays", 31), (0, "rays", "3", 1)):
        assert not torch.equal(a, torch.randn(4, generator=generator(*other)))
    x, y = (numpy_generator(0, "x").normal(size=4) for _ in range(2))
    assert np.array_equal(x, y)


def test_seeds_are_the_same_on_every_machine():
    # Fixed here so that a change of the hash, which would change every run, is noticed.
    assert seed_of(0, "rays", 3, 1) == 565656968005699957


def test_devices():
    assert select_device("cpu").type == "cpu"
    for name in ("gpu", "mps", "cuda:99"):
        with pytest.raises(UserError, match=name):
            select_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_asked_for_gpu_that_is_not_there():
    assert select_device("auto").type == "cpu"
    with pytest.raises(UserError, match="--device cpu"):
        select_device("cuda")


@pytest.mark.cuda
def test_gpu():
    assert select_device("auto").type == "cuda"


def test_trackers_that_are_not_there(monkeypatch):
    with pytest.raises(UserError, match="tensorbord"):
        make_accelerator(trackers=("tensorbord",), cpu=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install wandb"):
        make_accelerator(trackers=("wandb",), cpu=True)
