"""Channel-last half-precision copies of planes, made once per value of the planes.

Legend: B triplanes, C channels, H W plane size.
"""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from renderer.triplane import check_planes


class _Copies:
    """The latest copy per tensor; gone with the tensor, renewed when its values change.

    A view counts as the tensor it looks into, since views come and go with every call.
    """

    def __init__(self):
        self._entries: dict[int, tuple[weakref.ref, tuple, Tensor]] = {}

    def get(self, planes: Tensor) -> Tensor | None:
        if planes.is_inference():  # such tensors do not count their changes
            return None
        owner = _owner(planes)
        entry = self._entries.get(id(owner))
        if entry is None or entry[0]() is not owner or entry[1] != _state(planes):
            return None
        return entry[2]

    def put(self, planes: Tensor, copy: Tensor) -> None:
        if planes.is_inference():
            return
        owner = _owner(planes)
        key = id(owner)

        def forget(reference: weakref.ref) -> None:
            entry = self._entries.get(key)
            if entry is not None and entry[0] is reference:
                del self._entries[key]

        self._entries[key] = (weakref.ref(owner, forget), _state(planes), copy)


def _owner(planes: Tensor) -> Tensor:
    return planes if planes._base is None else planes._base


def _state(planes: Tensor) -> tuple:
    """Changes with the values, and with which of the owner's values these are."""
    shape = planes.shape[-4:]
    return planes._version, planes.data_ptr(), planes.numel(), shape, planes.stride()[-4:]


_copies = _Copies()


def texels(planes: Tensor) -> Tensor:
    """Planes as the kernels read them.

    Args:
        planes: [B, 3, C, H, W] or [3, C, H, W], any float type.

    Returns:
        [B, 3, H, W, C] half. The same tensor as before while ``planes`` does not change. A copy of
        planes whose memory is already channel-last reads and writes in order.
    """
    check_planes(planes, batched=planes.ndim == 5)
    copy = _copies.get(planes)
    if copy is None:
        batched = planes.detach() if planes.ndim == 5 else planes.detach()[None]
        copy = batched.permute(0, 1, 3, 4, 2).to(
            torch.float16, memory_format=torch.contiguous_format
        )
        copy = copy.contiguous()
        _copies.put(planes, copy)
    return copy


def remember_texels(planes: Tensor, copy: Tensor) -> None:
    """Let :func:`texels` return ``copy`` [B, 3, H, W, C] half until ``planes`` changes."""
    _copies.put(planes, copy)
