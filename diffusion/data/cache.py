"""Memory for what training loads again and again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from torch import Tensor

from diffusion.conditioning.features import PortraitFeatures

Item = TypeVar("Item")


class Cache(Generic[Item]):
    """Keeps what was loaded last, up to a number of bytes."""

    def __init__(self, load: Callable[[str], Item], size_of: Callable[[Item], int], limit: float):
        self.load, self.size_of, self.limit = load, size_of, limit
        self.items: OrderedDict[str, Item] = OrderedDict()
        self.bytes = 0

    def __getitem__(self, name: str) -> Item:
        if name in self.items:
            self.items.move_to_end(name)
            return self.items[name]
        item = self.load(name)
        self.items[name] = item
        self.bytes += self.size_of(item)
        while self.bytes > self.limit and self.items:
            _, dropped = self.items.popitem(last=False)
            self.bytes -= self.size_of(dropped)
        return item


def tensor_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def feature_bytes(features: PortraitFeatures) -> int:
    return sum(tensor_bytes(tensor) for tensor in (features.latent, *features.levels))
