"""The order of samples: which of them a training step takes.

Sample g of step s is item s·G + g of an endless list (G: global batch), so that the samples of a
step don't depend on how often a run was interrupted or on the number of its processes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from runtime.seeds import generator


class ShuffledOrder:
    """An endless list of items in which every epoch is a fresh permutation of n items."""

    def __init__(self, n: int, *key: int | str) -> None:
        self.n = n
        self.key = key
        self._cached: tuple[int, Tensor] | None = None

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, self.n)
        if self._cached is None or self._cached[0] != epoch:
            permutation = torch.randperm(self.n, generator=generator(*self.key, epoch))
            self._cached = (epoch, permutation)
        return int(self._cached[1][place])


class MicroBatches(Sampler[list[int]]):
    """Positions in the endless list that one process takes, micro-batch by micro-batch."""

    def __init__(self, first: int, last: int, per_step: int, split: int, rank: int, world: int):
        """Steps first..last-1 of `per_step` samples, in `split` micro-batches on each process."""
        self.first, self.last = first, last
        self.per_step, self.split, self.rank, self.world = per_step, split, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        size = self.per_step // (self.split * self.world)
        for step in range(self.first, self.last):
            for micro in range(self.split):
                begin = step * self.per_step + (micro * self.world + self.rank) * size
                yield list(range(begin, begin + size))

    def __len__(self) -> int:
        return (self.last - self.first) * self.split
