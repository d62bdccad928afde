"""Buffers of the CPU kernels: parameters, memory of a chunk.

Legend: N samples of a chunk, R rays, B triplanes, C channels, K hidden width,
E columns of the encoded density channels, D of the encoded colour channels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from renderer.cpu.kernels.compositing import Composited
from renderer.cpu.kernels.lookahead import Waiting

CHUNK = 1024
# Activations are kept for the backward pass up to this much and computed again beyond it.
KEEP_BYTES = 2**27


class Parameters(NamedTuple):
    """The parameters of a chunk, from :func:`renderer.cpu.field.fold`.

    Attributes:
        planes: channel-last, [B·3, H, W, C].
        density_in: [K, E]. density_bias: [K]. density_out: [K]. density_offset: [1].
        color_in: over encoded colour channels and density hidden units, [K, D + K].
        color_hidden: [K, K]. color_out: [3, K].
        ray_term: the first colour layer's constant part of each ray, [R, K].
    """

    planes: Tensor
    density_in: Tensor
    density_bias: Tensor
    density_out: Tensor
    density_offset: Tensor
    color_in: Tensor
    color_hidden: Tensor
    color_out: Tensor
    ray_term: Tensor


class Buffer:
    """Rows for the samples of a chunk, seen by PyTorch and by the kernels."""

    def __init__(self, width: int):
        self.tensor = torch.empty(CHUNK, width)
        self.array = self.tensor.numpy()

    def rows(self, count: int) -> tuple[Tensor, np.ndarray]:
        """The first ``count`` rows, both ways."""
        if count == CHUNK:
            return self.tensor, self.array
        return self.tensor[:count], self.array[:count]


class Activations:
    """The results of a chunk's forward pass that its backward pass needs.

    Attributes:
        density_encoded: [N, E]. wide: encoded colour channels and density hidden units,
            [N, D + K]. first, second: hidden units of the colour network, [N, K].
        exponent: logarithm of density, [N].
    """

    def __init__(self, widths: tuple[int, int, int]):
        density, wide, hidden = self.widths = widths
        self.density_encoded, self.wide = Buffer(density), Buffer(wide)
        self.first, self.second = Buffer(hidden), Buffer(hidden)
        self.exponent = np.empty(CHUNK, np.float32)

    @staticmethod
    def bytes_of(widths: tuple[int, int, int]) -> int:
        """Memory of one chunk."""
        density, wide, hidden = widths
        return 4 * CHUNK * (density + wide + 2 * hidden + 1)


class Shown:
    """A chunk of samples in sight, in the order in which they were found.

    Attributes:
        count: how many there are so far.
        ray: [N] int64. t, density, weight, after: distance, density, weight and the transmittance
            behind, [N]. color: [N, 3].
        activations: of the decoder; None once they are not kept.
    """

    def __init__(self, activations: Activations):
        self.activations: Activations | None = activations
        self.ray = np.empty(CHUNK, np.int64)
        self.t, self.density, self.weight, self.after = np.empty((4, CHUNK), np.float32)
        self.color = np.empty((CHUNK, 3), np.float32)
        self.count = 0

    def waiting(self) -> Waiting:
        """The numbers of samples that wait for their colour."""
        assert self.activations is not None
        exponent = self.activations.exponent
        return Waiting(self.ray, self.t, self.density, exponent, self.weight, self.after)

    def composited(self) -> Composited:
        """The samples there are."""
        single = (
            x[: self.count] for x in (self.ray, self.t, self.density, self.weight, self.after)
        )
        return Composited(*(x[: self.count] for x in (*single, self.color)))


# Fresh memory costs a page fault every 4 KiB, as much as computing what it holds: chunks whose
# backward pass is done serve the next step.
_spare: dict[tuple[int, int, int], list[Activations]] = {}


def chunks_to_keep(widths: tuple[int, int, int], workers: int) -> int:
    """Return how many chunks' activations one of some workers keeps for the backward pass."""
    return KEEP_BYTES // (workers * Activations.bytes_of(widths))


def take_activations(widths: tuple[int, int, int]) -> Activations:
    """A chunk's buffers, used ones if there are any."""
    try:
        return _spare[widths].pop()
    except (KeyError, IndexError):
        return Activations(widths)


def give_back_activations(used: list[Activations]) -> None:
    """Keep buffers for the next step, within ``KEEP_BYTES``."""
    for activations in used:
        waiting = _spare.setdefault(activations.widths, [])
        if len(waiting) * Activations.bytes_of(activations.widths) < KEEP_BYTES:
            waiting.append(activations)


def chunks(low: int, high: int) -> list[tuple[int, int]]:
    """Adjoining ranges of at most ``CHUNK`` samples."""
    return [(start, min(start + CHUNK, high)) for start in range(low, high, CHUNK)]
