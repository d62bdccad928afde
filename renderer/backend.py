"""The choice of the implementation that runs the renderer's operations, once, by name.

- ``"reference"``: plain PyTorch, any device and dtype; the definition of what is right.
- ``"torch"``: plain PyTorch, with colour and gradients only where light arrives.
- ``"numba"``: compiled kernels for fp32 on the CPU (:mod:`renderer.cpu`).
- ``"cuda"``: the CUDA kernels (:mod:`renderer.cuda`).
- ``"auto"``: the fastest that serves the device, the dtype and the gradients that are wanted.

Asking by name for what cannot run raises; what "auto" chose is logged once, under its own name.

Legend: B triplanes, G cells along one side of the box, R rays, S samples.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor

from renderer.decoder import TriplaneDecoder
from renderer.march_settings import RenderSettings
from renderer.samples import Rendered, Samples
from runtime.errors import UserError

IMPLS = ("auto", "cuda", "numba", "torch", "reference")

logger = logging.getLogger("triavatar.renderer")
_meaning_of_auto: ContextVar[str] = ContextVar("meaning of auto", default="auto")


class Backend(Protocol):
    """The operations that a backend implements; :mod:`renderer.plain` documents each.

    Attributes:
        name: what ``impl`` and the log call it.
        differentiates_rays: whether points, origins and directions get gradients. Those of a
            backend that cannot are refused, not ignored.
    """

    name: str
    differentiates_rays: bool

    def obstacle(self, *tensors: Tensor, decoder: object = None) -> str | None:
        """Why it cannot serve these tensors and this decoder, in a sentence; None if it can."""
        ...

    def march(
        self,
        origins: Tensor,
        directions: Tensor,
        occupied: Tensor,
        *,
        steps: int,
        near: float,
        jitter: Tensor | None,
    ) -> Samples: ...

    def query_field(
        self,
        planes: Tensor,
        decoder: TriplaneDecoder,
        points: Tensor,
        directions: Tensor,
        ray: Tensor,
    ) -> tuple[Tensor, Tensor]: ...

    def query_density(self, planes: Tensor, decoder: TriplaneDecoder, points: Tensor) -> Tensor: ...

    def refresh_density(
        self,
        density: Tensor,
        planes: Tensor,
        decoder: TriplaneDecoder,
        coordinates: list[Tensor],
        decay: float,
        within: Tensor | None = None,
    ) -> None: ...

    def render_rays(
        self,
        planes: Tensor,
        decoder: TriplaneDecoder,
        occupied: Tensor,
        origins: Tensor,
        directions: Tensor,
        background: Tensor,
        settings: RenderSettings,
        jitter: Tensor | None,
    ) -> Rendered: ...

    def plane_step(self, planes: Tensor) -> Callable[..., Any] | None:
        """The optimiser step of planes [3, C, H, W] in one pass, if there is one for them."""
        ...


@contextmanager
def auto_means(impl: str) -> Iterator[None]:
    """Within the block, "auto" is ``impl``: measures and tests choose for code that does not."""
    token = _meaning_of_auto.set(impl)
    try:
        yield
    finally:
        _meaning_of_auto.reset(token)


def resolve(
    impl: str, *tensors: Tensor, decoder: object = None, rays: Sequence[Tensor] = ()
) -> Backend:
    """The backend that ``impl`` names for these tensors and this decoder.

    Args:
        rays: those of the tensors that say where to look: points, origins, directions.

    Raises:
        ValueError: if there is no such implementation, or it was asked for by name and gives no
            gradient to rays that want one.
        UserError: if it was asked for by name and cannot run; says why.
    """
    if impl not in IMPLS:
        raise ValueError(f"impl must be one of {', '.join(IMPLS)}, got {impl!r}")
    wanting = torch.is_grad_enabled() and any(ray.requires_grad for ray in rays)
    if impl == "auto":
        impl = _meaning_of_auto.get()
    if impl == "auto":
        return _fastest(tensors, decoder, wanting)
    backend = _load(impl)
    reason = backend.obstacle(*tensors, decoder=decoder)
    if reason is not None:
        raise UserError(f"impl='{impl}' cannot run: {reason}")
    if wanting and not backend.differentiates_rays:
        raise ValueError(
            f"impl='{impl}' gives no gradient to points, origins and directions; "
            "use impl='reference' or 'auto'"
        )
    return backend


def _fastest(tensors: Sequence[Tensor], decoder: object, wanting: bool) -> Backend:
    device = tensors[0].device.type
    if wanting or all(tensor.dtype == torch.float64 for tensor in tensors):
        return _load("reference")
    kernels = {"cuda": "cuda", "cpu": "numba"}.get(device)
    if kernels is not None:
        backend = _load(kernels)
        reason = backend.obstacle(*tensors, decoder=decoder)
        if reason is None:
            return _announced(backend, device)
        _warn_without_kernels(kernels, reason)
    return _announced(_load("torch"), device)


@functools.cache
def _load(name: str) -> Backend:
    # Imported when asked for: numba takes a second, CUDA's modules are of no use without a GPU.
    if name == "cuda":
        from renderer.cuda.backend import CudaBackend

        return CudaBackend()
    if name == "numba":
        from renderer.cpu.backend import NumbaBackend

        return NumbaBackend()
    from renderer.plain import ReferenceBackend, TorchBackend

    return TorchBackend() if name == "torch" else ReferenceBackend()


@functools.cache
def _warn_without_kernels(name: str, reason: str) -> None:
    logger.warning("rendering in plain PyTorch, several times slower than %s: %s", name, reason)


def _announced(backend: Backend, device: str) -> Backend:
    _announce(backend.name, device)
    return backend


@functools.cache
def _announce(name: str, device: str) -> None:
    logger.info("rendering on %s with impl=%s", device, name)
