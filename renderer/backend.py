"""Which implementation of an operation runs.

- ``"reference"``: plain PyTorch, any device and dtype; the definition of what is right.
- ``"torch"``: the fast path without CUDA kernels. On the CPU in fp32 it runs compiled kernels
  (:mod:`renderer.cpu`) when numba is installed, elsewhere PyTorch on fewer samples.
- ``"cuda"``: the CUDA kernels (:mod:`renderer.cuda`).
- ``"auto"``: the fastest that fits the device and dtype.

Asking for what cannot run raises; what "auto" chose is logged once.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import torch
from torch import Tensor

from renderer.decoder import TriplaneDecoder
from runtime.errors import UserError

Impl = Literal["auto", "cuda", "torch", "reference"]
IMPLS = ("auto", "cuda", "torch", "reference")

logger = logging.getLogger("triavatar.renderer")
_meaning_of_auto: ContextVar[str] = ContextVar("meaning of auto", default="auto")


@contextmanager
def auto_means(impl: str) -> Iterator[None]:
    """Within the block, "auto" is ``impl``: measures and tests choose for code that does not."""
    token = _meaning_of_auto.set(impl)
    try:
        yield
    finally:
        _meaning_of_auto.reset(token)


@functools.cache
def has_numba() -> bool:
    """Whether the CPU kernels can be compiled; says so once if not."""
    try:
        import numba  # noqa: F401
    except ImportError as error:
        logger.warning(
            "numba is not installed (%s): rendering on the CPU uses PyTorch's own gather, several "
            "times slower; pip install numba",
            error,
        )
        return False
    return True


def uses_cpu_kernels(*tensors: Tensor, decoder: Any = None) -> bool:
    """Whether the compiled CPU kernels serve these tensors and this decoder."""
    if any(t.device.type != "cpu" or t.dtype != torch.float32 for t in tensors):
        return False
    if decoder is not None:
        # Another backend's decoder has no matrices to fold.
        if not isinstance(decoder, TriplaneDecoder):
            return False
        weight = decoder.color_out.weight
        if weight.device.type != "cpu" or weight.dtype != torch.float32:
            return False
    return has_numba()


def choose(impl: str, *tensors: Tensor, decoder: Any = None) -> str:
    """Resolve ``impl`` for these tensors and decoder: "cuda", "torch" or "reference".

    Raises:
        ValueError: if there is no such implementation.
        UserError: if it was asked for by name and cannot run.
    """
    if impl not in IMPLS:
        raise ValueError(f"impl must be one of {', '.join(IMPLS)}, got {impl!r}")
    if impl == "cuda":
        reason = cuda_obstacle(*tensors, decoder=decoder)
        if reason:
            raise UserError(reason)
    if impl == "auto":
        impl = _meaning_of_auto.get()
    if impl != "auto":
        return impl
    if all(t.dtype == torch.float64 for t in tensors):
        return "reference"
    device = tensors[0].device.type
    if device == "cuda":
        reason = cuda_obstacle(*tensors, decoder=decoder)
        if reason is None:
            _announce("cuda", device)
            return "cuda"
        _warn_without_kernels(reason)
    _announce("torch", device)
    return "torch"


def cuda_obstacle(*tensors: Tensor, decoder: Any = None) -> str | None:
    """Why the CUDA kernels cannot serve these tensors and this decoder; None if they can."""
    from renderer.cuda.field import layout_for
    from renderer.cuda.layout import DecoderShape
    from renderer.cuda.modules import loading_obstacle

    devices = {t.device for t in tensors}
    if len(devices) > 1:
        return f"tensors are on several devices: {', '.join(sorted(map(str, devices)))}"
    reason = loading_obstacle(tensors[0].device)
    if reason is not None or decoder is None:
        return reason
    if not isinstance(decoder, TriplaneDecoder):
        return f"the CUDA kernels need a TriplaneDecoder, not a {type(decoder).__name__}"
    try:
        layout_for(DecoderShape.of(decoder), tensors[0].device, backward=True)
    except UserError as error:
        return str(error)
    return None


@functools.cache
def _warn_without_kernels(reason: str) -> None:
    logger.warning("rendering on the GPU without the CUDA kernels: %s", reason)


@functools.cache
def _announce(chosen: str, device: str) -> None:
    logger.info("rendering on %s with impl=%s", device, chosen)
