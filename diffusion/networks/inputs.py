"""Preparation of both models' arguments before the U-Net runs.

Letters: B batch, C channels, H plane size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def attention_levels(plane_size: int, sizes: Sequence[int], levels: int) -> list[int]:
    """Levels of the U-Net that have the given resolutions, finest first.

    Raises:
        ValueError: a resolution the U-Net does not pass through, or one too small to halve.
    """
    if plane_size % 2 ** (levels - 1) or plane_size >> (levels - 1) < 2:
        raise ValueError(
            f"planes of {plane_size} x {plane_size} cannot be halved {levels - 1} times to "
            "2 x 2 or more; use fewer multipliers or larger planes"
        )
    passed = [plane_size >> level for level in range(levels)]
    for size in sizes:
        if size not in passed:
            raise ValueError(f"attention at {size} x {size}, but the U-Net passes {passed}")
    return sorted(passed.index(size) for size in sizes)


def tokens_by_level(
    tokens: Sequence[Tensor], attention: Sequence[int], levels: int
) -> list[Tensor | None]:
    """Gives each attention level its feature map's tokens: the finest map to the finest level.

    When there are more maps than attention levels, the coarsest level reads all that are left.
    """
    chosen: list[Tensor | None] = [None] * levels
    for index, level in enumerate(attention):
        last = index == len(attention) - 1
        own = tokens[index:] if last else tokens[index : index + 1]
        chosen[level] = torch.cat(list(own), dim=1) if len(own) > 1 else own[0]
    return chosen


def check_attention(attention: Sequence[int], features: int) -> None:
    """Every attention level needs a feature map, or it has no tokens to read."""
    if not 1 <= len(attention) <= features:
        raise ValueError(
            f"{len(attention)} attention resolutions for {features} feature maps: give at least "
            "one resolution and no more than there are maps"
        )


def check_rollout(x: Tensor, channels: int, size: int, name: str) -> None:
    """Refuses anything but a roll-out [B, C, H, 3·H] of the model's size."""
    if x.ndim != 4 or tuple(x.shape[1:]) != (channels, size, 3 * size):
        raise ValueError(
            f"{name} must be a roll-out [B, {channels}, {size}, {3 * size}], got {list(x.shape)}"
        )


def batched_timestep(timestep: Tensor | int, batch: int, device: torch.device) -> Tensor:
    """A timestep for each sample, [B], from one for all or one for each."""
    timestep = torch.as_tensor(timestep, device=device).reshape(-1)
    if timestep.shape[0] not in (1, batch):
        raise ValueError(f"{timestep.shape[0]} timesteps for a batch of {batch}")
    return timestep.expand(batch)


def drop_mask(drop: Tensor | None, unconditional: bool, batch: int, device: torch.device) -> Tensor:
    """Return which samples have no portrait, [B] bool."""
    if unconditional:
        return torch.ones(batch, dtype=torch.bool, device=device)
    if drop is None:
        return torch.zeros(batch, dtype=torch.bool, device=device)
    if drop.shape != (batch,) or drop.dtype != torch.bool:
        raise ValueError(f"drop must be [{batch}] bool, got {list(drop.shape)} {drop.dtype}")
    return drop.to(device)
