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
            self._cached = (epoch, self.permutation(epoch))
        return int(self._cached[1][place])

    def permutation(self, epoch: int) -> Tensor:
        """All items [n] in the order of an epoch."""
        return torch.randperm(self.n, generator=generator(*self.key, epoch))


WINDOW = 8
"""Shards whose items are mixed."""


class WindowedOrder(ShuffledOrder):
    """An order that takes few shards at a time, so that each is fetched once an epoch.

    Shards are shuffled, then the items of every `WINDOW` shards in a row among each other.

    Args:
        groups: items of each shard; together 0..n-1.
        key: names the random stream.
    """

    def __init__(self, groups: list[list[int]], *key: int | str) -> None:
        super().__init__(sum(map(len, groups)), *key)
        self.groups = groups

    def permutation(self, epoch: int) -> Tensor:
        """As of `ShuffledOrder`, shard by shard."""
        random = generator(*self.key, epoch)
        shards = torch.randperm(len(self.groups), generator=random).tolist()
        windows = []
        for first in range(0, len(shards), WINDOW):
            together = [item for shard in shards[first : first + WINDOW] for item in self.groups[shard]]
            mixed = torch.randperm(len(together), generator=random)
            windows.append(torch.tensor(together)[mixed])
        return torch.cat(windows)


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
