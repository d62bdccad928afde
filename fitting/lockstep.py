"""One decoder step for several subjects: the gradient is the mean over them.

The subjects may lie in one process or be spread over several, each visiting some of them: the
decoder sees the same gradient, up to the order in which floats are summed. With one subject in
one process this is the plain step of Algorithm 1 (RodinHD).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from fitting.consolidation import Consolidation
from fitting.subject_fit import SubjectFit
from runtime.processes import Processes


def lockstep(
    fits: Sequence[SubjectFit],
    pairs: Sequence[Consolidation | None],
    weight: float,
    decoder: nn.Module,
    optimizer: torch.optim.Optimizer,
    subjects: int,
    processes: Processes,
) -> Tensor:
    """Step the triplanes of ``fits`` and the decoder they share.

    Args:
        fits: this process's subjects; may be empty where there are fewer subjects than processes.
        pairs: what each of them holds the decoder to.
        weight: λ/2 of that penalty.
        decoder, optimizer: equal on every process, and equal afterwards.
        subjects: how many there are in all processes together.

    Returns:
        The sum of the render losses of this process's subjects before the step; scalar.
    """
    optimizer.zero_grad()
    total = next(decoder.parameters()).new_zeros(())
    for fit, pair in zip(fits, pairs, strict=True):
        total = total + fit.backward(pair, weight)
    average_gradients(decoder.parameters(), subjects, processes)
    optimizer.step()
    for fit in fits:
        fit.update()
    return total


@torch.no_grad()
def average_gradients(
    parameters: Iterable[nn.Parameter], subjects: int, processes: Processes
) -> None:
    """Divide gradients, summed over this process's subjects and then over all processes."""
    parameters = list(parameters)
    if processes.count > 1:
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters]
        )
        processes.sum_(flat)
        start = 0
        for p in parameters:
            p.grad = flat[start : start + p.numel()].view_as(p).clone()
            start += p.numel()
    if subjects > 1:
        for p in parameters:
            if p.grad is not None:
                p.grad /= subjects
