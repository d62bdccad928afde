"""How much memory a training step takes, and how it is made to fit the cards.

Activations are counted, not guessed: the model runs forward on tensors that have a shape and no
content, and every storage that autograd keeps for the backward pass is added up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from diffusion.conditioning.features import PortraitFeatures
from diffusion.training.diffusion_config import DiffusionConfig
from runtime.devices import select_device
from runtime.errors import UserError
from runtime.launch import process_count

GIB = 2**30
CONTEXT_GIB = 1.5
"""What CUDA, cuDNN's workspace and NCCL take of a card."""
USABLE = 0.9
"""Share of the rest that an allocator fills before it fragments."""
TRAINED_BYTES = 16
"""Of a parameter in float32: itself, its gradient and Adam's two moments."""


@dataclass(frozen=True)
class StepMemory:
    """Memory of one training step.

    Attributes:
        fixed_gib: weights, gradients, Adam, averages: whatever the batch.
        sample_gib: activations of one sample.
        checkpointed_gib: the same with gradient checkpointing.
        tflop: operations of a forward pass of one sample, 10¹².
    """

    fixed_gib: float
    sample_gib: float
    checkpointed_gib: float
    tflop: float = 0.0


@dataclass(frozen=True)
class MemoryPlan:
    """How a global batch is run on the cards there are."""

    accumulation: int
    micro_batch: int
    checkpointing: bool
    gib: float

    def describe(self, cards: int, card_gib: float) -> str:
        """Return the plan as a line of a log."""
        checkpointing = "with" if self.checkpointing else "without"
        return (
            f"{cards} x {card_gib:.0f} GiB: micro-batches of {self.micro_batch}, "
            f"{self.accumulation} a step on each card, {checkpointing} gradient checkpointing, "
            f"about {self.gib:.1f} GiB a card"
        )


def plan_memory(memory: StepMemory, batch_size: int, cards: int, card_gib: float) -> MemoryPlan:
    """Choose accumulation and checkpointing: the largest micro-batch that fits.

    Checkpointing computes every activation twice, a third more work; it is chosen only where not
    even one sample fits without it.

    Args:
        memory: of a step.
        batch_size: samples of an optimiser step, on all cards together.
        cards: number of cards.
        card_gib: memory of the smallest of them.

    Raises:
        UserError: the batch can't be split over the cards, or no sample fits.
    """
    if batch_size % cards:
        raise UserError(f"batch_size {batch_size} can't be split evenly over {cards} cards")
    share = batch_size // cards
    room = (card_gib - CONTEXT_GIB) * USABLE - memory.fixed_gib
    for checkpointing in (False, True):
        each = memory.checkpointed_gib if checkpointing else memory.sample_gib
        fitting = [n for n in range(1, share + 1) if share % n == 0 and n * each <= room]
        if fitting:
            micro = max(fitting)
            return MemoryPlan(
                share // micro, micro, checkpointing, memory.fixed_gib + micro * each + CONTEXT_GIB
            )
    needed = (memory.fixed_gib + memory.checkpointed_gib) / USABLE + CONTEXT_GIB
    raise UserError(
        f"a card of {card_gib:.0f} GiB can't train this model: one sample with gradient "
        f"checkpointing takes about {needed:.0f} GiB; lower the model's width or use larger cards"
    )


def step_memory(
    model: Any, half: bool, average_on_card: bool, cards: int, extra_gib: float = 0.0
) -> StepMemory:
    """Count what a training step of a model takes.

    Args:
        model: TriplaneUNet or TriplaneUpsampler; only its configuration is looked at.
        half: mixed precision (fp16 and bf16 are of one size).
        average_on_card: the averaged weights lie on the card.
        cards: more than one keep gradients in buckets as well.
        extra_gib: activations of a sample beside the model's, such as those of rendering.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    with FakeTensorMode():
        copy = type(model).from_config(model.config).train()
        call = _example_call(copy)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            sample = _saved_gib(copy, call)
            checkpointed = _checkpointed_gib(copy, call)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            call()
    parameters = sum(parameter.numel() for parameter in copy.parameters())
    each = TRAINED_BYTES + 4 * average_on_card + 2 * half + 4 * (cards > 1)
    return StepMemory(
        fixed_gib=each * parameters / GIB,
        sample_gib=sample + extra_gib,
        checkpointed_gib=checkpointed + extra_gib,
        tflop=counter.get_total_flops() / 1e12,
    )


Config = TypeVar("Config", bound=DiffusionConfig)


def fitted_to_cards(config: Config, model: Any, extra_gib: float) -> tuple[Config, str | None]:
    """Return settings that fit the cards of this training, and a line that says so.

    Without a GPU the settings stay as they are.

    Raises:
        UserError: no sample of the model fits.
    """
    device = select_device(config.device)
    if device.type != "cuda":
        return config, None
    cards = process_count()
    card_gib = torch.cuda.get_device_properties(device).total_memory / GIB
    half = config.mixed_precision != "no"
    average = config.ema_decay > 0 and not config.ema_on_cpu
    memory = step_memory(model, half, average, cards, extra_gib)
    plan = plan_memory(memory, config.batch_size, cards, card_gib)
    chosen = replace(
        config,
        gradient_accumulation=plan.accumulation,
        gradient_checkpointing=plan.checkpointing,
    )
    return chosen, plan.describe(cards, card_gib)


def _example_call(model: Any) -> Callable[[], Any]:
    """A forward pass of one sample without content."""
    config = model.config
    channels, size = config["plane_channels"], config["plane_size"]

    def rollout(side: int) -> Tensor:
        return torch.zeros(1, channels, side, 3 * side)

    latent = torch.zeros(1, config["latent_channels"], config["latent_size"], config["latent_size"])
    shapes = zip(config["feature_channels"], config["feature_sizes"], strict=True)
    levels: Any = tuple(torch.zeros(1, c, s, s) for c, s in shapes)
    inputs = {"features": PortraitFeatures(latent, levels)}
    if "low_res_size" in config:
        inputs["low_res"] = rollout(config["low_res_size"])
    elif config["guided"]:
        inputs["guide"] = rollout(size)
    step = torch.zeros(1, dtype=torch.long)
    return lambda: model(rollout(size), step, **inputs)


class _Storages:
    """Distinct storages, in bytes; those of parameters don't count."""

    def __init__(self, without: nn.Module) -> None:
        self._own = {parameter.untyped_storage()._cdata for parameter in without.parameters()}
        self._seen: dict[int, Any] = {}

    def add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._own:
            self._seen[storage._cdata] = storage  # kept, so that its number isn't used again
        return tensor

    @property
    def gib(self) -> float:
        return sum(storage.nbytes() for storage in self._seen.values()) / GIB


def _saved_gib(model: Any, call: Callable[[], Any]) -> float:
    kept = _Storages(model)
    with saved_tensors_hooks(kept.add, lambda tensor: tensor):
        call()
    return kept.gib


def _checkpointed_gib(model: Any, call: Callable[[], Any]) -> float:
    """Inputs of all blocks, and the activations of the one that holds most while it is redone."""
    kept, largest = _Storages(model), 0.0

    def run(block: nn.Module, *inputs: Tensor | None) -> Tensor:
        nonlocal largest
        for tensor in inputs:
            if tensor is not None:
                kept.add(tensor)
        inner = _Storages(model)
        with saved_tensors_hooks(inner.add, lambda tensor: tensor):
            output = block(*inputs)
        largest = max(largest, inner.gib)
        return output

    model.enable_gradient_checkpointing(run)
    try:
        with saved_tensors_hooks(kept.add, lambda tensor: tensor):
            call()
    finally:
        model.disable_gradient_checkpointing()
    return kept.gib + largest
