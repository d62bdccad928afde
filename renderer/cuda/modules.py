"""Loaded kernels by source, specialisation and device."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from renderer.cuda.availability import (
    capability_of,
    toolkit_major,
    unavailable_reason,
)
from renderer.cuda.build import cached_image
from renderer.cuda.driver import Argument, DriverModule
from renderer.cuda.toolkit import load_nvrtc
from runtime.errors import UserError


class Module(Protocol):
    """Kernels that can be launched."""

    def launch(
        self, name: str, grid: Sequence[int], block: int, shared: int, arguments: Sequence[Argument]
    ) -> None: ...


Loader = Callable[[str, dict[str, int], torch.device], Module]


def _load_on_gpu(name: str, macros: dict[str, int], device: torch.device) -> Module:
    image = cached_image(load_nvrtc(toolkit_major()), name, macros, capability_of(device))
    return DriverModule(image, device, macros.get("BLOCKS_PER_SM", 1))


# How to get kernels for tensors on a type of device. The tests add one for the CPU, which runs the
# same sources compiled for the host.
LOADERS: dict[str, Loader] = {"cuda": _load_on_gpu}
_loaded: dict[tuple, Module] = {}


def loading_obstacle(device: torch.device) -> str | None:
    """Why kernels for tensors on ``device`` cannot be loaded, in a sentence; None if they can."""
    if device.type == "cuda" or device.type not in LOADERS:
        return unavailable_reason(device)
    return None


def load_module(name: str, macros: dict[str, int], device: torch.device) -> Module:
    """Kernels of ``kernels/<name>``, compiled on first use.

    Args:
        macros: the specialisation.
        device: where their tensors lie.

    Raises:
        UserError: if they cannot run there; says why.
    """
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    key = (name, tuple(sorted(macros.items())), device)
    if key not in _loaded:
        reason = loading_obstacle(device)
        if reason is not None:
            raise UserError(reason)
        _loaded[key] = LOADERS[device.type](name, macros, device)
    return _loaded[key]


def check_count(samples: int) -> None:
    """Refuse more samples than the kernels' 32-bit indices reach.

    Raises:
        ValueError: says how many there are.
    """
    if samples >= 2**29:  # colours have three values each, gradients four
        raise ValueError(f"{samples} samples in one call; render fewer rays at a time")


def check_indices(name: str, index: torch.Tensor, bound: int) -> None:
    """Refuse indices outside [0, bound).

    On a GPU this is an assertion of the device, as with PyTorch's own indexing: nothing waits.

    Raises:
        RuntimeError: names the indices.
    """
    if index.numel():
        inside = ((index >= 0) & (index < bound)).all()
        torch._assert_async(inside, f"{name} has an index outside [0, {bound})")


def refuse_nondeterminism() -> None:
    """Respect ``torch.use_deterministic_algorithms``.

    Gradients are summed in the order in which a GPU's blocks finish, so their last bits differ from
    run to run.

    Raises:
        UserError: if only deterministic algorithms are allowed.
    """
    if not torch.are_deterministic_algorithms_enabled():
        return
    message = (
        "the gradients of the CUDA kernels are not deterministic, but "
        "torch.use_deterministic_algorithms is on: turn it off, or on with warn_only=True"
    )
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        raise UserError(message)
    warnings.warn(message, stacklevel=2)


def check_tensor(
    name: str, tensor: torch.Tensor, shape: Sequence[int | None], device: torch.device
) -> torch.Tensor:
    """``tensor`` as contiguous fp32, after checking its shape (None: any size) and device.

    Raises:
        ValueError: names what does not fit.
    """
    fits = tensor.ndim == len(shape) and all(
        want is None or want == have for want, have in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        expected = ", ".join("*" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} must be [{expected}], got {list(tensor.shape)}")
    if tensor.device != device:
        raise ValueError(f"{name} is on {tensor.device}, the others on {device}")
    return tensor.detach().to(torch.float32).contiguous()
