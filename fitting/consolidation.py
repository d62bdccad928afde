"""Identity-aware weight consolidation: what each identity needs the shared decoder to keep.

RodinHD, Algorithm 1: after visiting identity s, Ω_s ← (∇_ω L_render)² and ω*_s ← ω; while
visiting it again the loss gains λ/2 · Σ Ω_s (ω − ω*_s)². Each identity owns one pair, from its
own last visit. As in elastic weight consolidation (Kirkpatrick 2017), Ω is the diagonal of the
Fisher matrix; one batch is a noisy estimate of it, so squares are averaged over several.

:func:`accumulate` is the other way to use it, one running pair for all identities (online EWC,
Schwarz et al. 2018): it holds the decoder near what *every* earlier identity needs, in the memory
of one pair, where RodinHD's holds it near what the identity being visited needed last time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Consolidation:
    """One identity's importance and anchor, flattened in the order of ``decoder.parameters()``.

    Attributes:
        importance: Ω_s ≥ 0, [parameters] fp32.
        anchor: ω*_s, [parameters] fp32.
    """

    importance: Tensor
    anchor: Tensor

    def penalty(self, decoder: nn.Module) -> Tensor:
        """Σ Ω_s (ω − ω*_s)², scalar, to be weighted by λ/2; differentiable to the decoder."""
        weights = nn.utils.parameters_to_vector(decoder.parameters())
        return (self.importance * (weights - self.anchor).square()).sum()


def estimate_importance(decoder: nn.Module, losses: Iterable[Tensor]) -> Tensor:
    """Diagonal Fisher estimate: the mean over batches of the squared gradient, [parameters].

    Args:
        decoder: whose parameters are differentiated.
        losses: one render loss per batch, each with a graph to the decoder; nothing but the
            render loss, or the penalty would count itself.

    Raises:
        ValueError: if there is no batch.
    """
    parameters = list(decoder.parameters())
    total: Tensor | None = None
    count = 0
    for loss in losses:
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        flat = torch.cat(
            [
                (torch.zeros_like(p) if g is None else g).reshape(-1)
                for p, g in zip(parameters, gradients, strict=True)
            ]
        )
        total = flat.square() if total is None else total + flat.square()
        count += 1
    if total is None:
        raise ValueError("the importance needs at least one batch")
    return total / count


def consolidate(decoder: nn.Module, losses: Iterable[Tensor]) -> Consolidation:
    """The pair (Ω_s, ω*_s) at the decoder's present weights."""
    importance = estimate_importance(decoder, losses)
    anchor = nn.utils.parameters_to_vector(decoder.parameters()).detach().clone()
    return Consolidation(importance, anchor)


def accumulate(
    running: Consolidation | None, importance: Tensor, decoder: nn.Module, decay: float
) -> Consolidation:
    """The running pair after a visit: Ω ← decay · Ω + Ω_s and ω* ← ω.

    Args:
        running: the pair before, None before the first visit.
        importance: Ω_s of the identity just visited, or the sum over several, [parameters].
        decay: share of the earlier importance that stays, in [0, 1].
    """
    anchor = nn.utils.parameters_to_vector(decoder.parameters()).detach().clone()
    earlier = 0.0 if running is None else decay * running.importance
    return Consolidation(earlier + importance, anchor)
