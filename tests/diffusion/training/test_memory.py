"""The memory model, counted against autograd's real tensors, and the plans made of it."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from diffusion.networks import TriplaneUNet
from diffusion.training.memory import GIB, StepMemory, plan_memory, step_memory
from runtime.errors import UserError
from runtime.launch import make_accelerator
from tests.diffusion.tiny import CONDITION, portraits

SMALL = {
    "plane_channels": 4,
    "plane_size": 16,
    "width": 16,
    "multipliers": (1, 2),
    "attention_sizes": (8,),
    "head_channels": 8,
    **CONDITION,
    "latent_width": 8,
    "token_width": 12,
}


def really_saved(model: TriplaneUNet) -> float:
    """GiB of distinct storages that autograd holds after a real forward pass."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, int] = {}
    kept = []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)  # what is freed would give its address to others
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        model(torch.randn(1, 4, 16, 48), torch.tensor([3]), portraits(1))
    return sum(seen.values()) / GIB


def test_counted_activations_are_the_real_ones():
    model = TriplaneUNet(**SMALL, blocks=1)
    memory = step_memory(model, half=False, average_on_card=True, cards=1)
    assert memory.sample_gib == pytest.approx(really_saved(model), rel=0.01)
    assert memory.checkpointed_gib < 0.8 * memory.sample_gib
    assert memory.tflop > 0
    parameters = sum(p.numel() for p in model.parameters())
    assert memory.fixed_gib == pytest.approx(20 * parameters / GIB)


BASE = StepMemory(fixed_gib=8.9, sample_gib=3.07, checkpointed_gib=0.71)
UPSAMPLER = StepMemory(fixed_gib=8.4, sample_gib=27.4, checkpointed_gib=9.1)


@pytest.mark.parametrize(
    ("memory", "batch", "cards", "gib", "micro", "accumulation", "checkpointing"),
    [
        (BASE, 96, 8, 31.7, 4, 3, False),  # 8 × V100
        (BASE, 96, 1, 139.8, 32, 3, False),  # one H200
        (BASE, 96, 8, 139.8, 12, 1, False),
        (UPSAMPLER, 32, 8, 31.7, 2, 2, True),
        (UPSAMPLER, 32, 1, 139.8, 4, 8, False),
        (BASE, 7, 1, 24.0, 1, 7, False),  # a prime: all or one
        (BASE, 96, 8, 14.0, 3, 4, True),
    ],
)
def test_plans_for_known_cards(memory, batch, cards, gib, micro, accumulation, checkpointing):
    plan = plan_memory(memory, batch, cards, gib)
    assert (plan.micro_batch, plan.accumulation) == (micro, accumulation)
    assert plan.checkpointing is checkpointing
    assert plan.micro_batch * plan.accumulation * cards == batch
    assert plan.gib < gib
    assert f"micro-batches of {micro}" in plan.describe(cards, gib)


def test_cards_that_are_too_small_are_refused():
    with pytest.raises(UserError, match="takes about 12 GiB"):
        plan_memory(BASE, 96, 8, 11)
    with pytest.raises(UserError, match="split evenly over 5 cards"):
        plan_memory(BASE, 96, 5, 32)


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_sharded_launches_are_refused(monkeypatch, variable):
    monkeypatch.setenv(variable, "true")
    with pytest.raises(UserError, match="not supported.*fit_memory"):
        make_accelerator(cpu=True)
