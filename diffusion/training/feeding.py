"""How a training loop's model is fed: whose micro-batches, loaded where, copied when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, Dataset

from diffusion.data.order import MicroBatches
from diffusion.training.loop_config import LoopConfig


def lay_channels_last(model: nn.Module) -> None:
    """Lay convolution weights out channels last; feature maps follow them."""
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def ahead(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """Batches on the device; the next one's copy begins before this one is worked on.

    On a GPU, copies from pinned memory run on a stream of their own, beside the kernels.
    """
    if device.type != "cuda":
        for batch in batches:
            yield batch.to(device)
        return
    here, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    waiting = None
    for batch in batches:
        # Memory that earlier batches leave is written to only once their work is done.
        side.wait_stream(here)
        with torch.cuda.stream(side):
            moved = batch.to(device)
        if waiting is not None:
            yield waiting
        here.wait_stream(side)
        waiting = moved
    if waiting is not None:
        yield waiting


def micro_batches(
    config: LoopConfig,
    accelerator: Accelerator,
    step: int,
    dataset: Dataset,
    collate: Callable[[list[Any]], Any],
) -> DataLoader:
    """This process's micro-batches of the steps from `step` on."""
    order = MicroBatches(
        step,
        config.steps,
        config.batch_size,
        config.gradient_accumulation,
        accelerator.process_index,
        accelerator.num_processes,
    )
    return DataLoader(
        dataset,
        batch_sampler=order,
        collate_fn=collate,
        num_workers=config.workers,
        pin_memory=accelerator.device.type == "cuda",
        # Its own: a loader draws from torch's when it begins, and dropout would go on elsewhere
        # after a resumption than without one.
        generator=torch.Generator().manual_seed(config.seed),
    )
