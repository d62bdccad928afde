"""Adam for a triplane: regularisers, step, clamp and the copies others read, in one pass.

Separate operations move every value of the planes through memory dozens of times a step: at 512²
that costs as much as rendering the rays. The kernels do it once.

Legend: C channels, H W plane size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fitting.losses import plane_regularisation
from renderer.backend import resolve
from renderer.triplane import check_planes


def channel_last(planes: Tensor) -> Tensor:
    """A copy of [3, C, H, W] whose channels lie together in memory; same shape and values."""
    check_planes(planes, batched=False)
    copy = planes.detach().permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
    return copy.permute(0, 3, 1, 2)


def fitting_copy(planes: Tensor) -> Tensor:
    """A copy of planes [3, C, H, W] in the layout that is fastest to fit where they are."""
    if _fused_step("auto", channel_last(planes)) is None:
        return planes.detach().clone(memory_format=torch.contiguous_format)
    return channel_last(planes)


class PlaneAdam(torch.optim.Adam):
    """Adam of one triplane under a regularised loss, values kept in [-1, 1].

    A step is that of :class:`torch.optim.Adam` on ``loss`` +
    :func:`fitting.losses.plane_regularisation` of ``planes − reference``, followed by a
    clamp; the caller differentiates ``loss`` alone.

    Args:
        planes: a leaf [3, C, H, W]. fp32 from :func:`channel_last` goes through the kernels, which
            exchange its memory at each step: views of it made before go stale.
        lr, betas, eps: as Adam's.
        tv_weight, l1_weight, l2_weight: of the regularisers.
        reference: planes they measure from, same shape; zero without.
        impl: see :mod:`renderer.backend`; "reference" is plain PyTorch.
    """

    def __init__(
        self,
        planes: Tensor,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-15,
        *,
        tv_weight: float = 0.0,
        l1_weight: float = 0.0,
        l2_weight: float = 0.0,
        reference: Tensor | None = None,
        impl: str = "auto",
    ):
        check_planes(planes, batched=False)
        if reference is not None and reference.shape != planes.shape:
            raise ValueError(
                f"reference is {list(reference.shape)}, the planes are {list(planes.shape)}"
            )
        if impl in ("numba", "cuda") and not _in_channel_last_memory(planes):
            raise ValueError("planes must be fp32 and channel-last: pass them through channel_last")
        super().__init__([planes], lr=lr, betas=betas, eps=eps)
        self.weights = (tv_weight, l1_weight, l2_weight)
        self.reference = None if reference is None else channel_last(reference.to(planes))
        self.impl = impl
        self._spare: Tensor | None = None

    @torch.no_grad()
    def step(self, closure=None):
        """One step from ``planes.grad``."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        planes = self.param_groups[0]["params"][0]
        if planes.grad is not None:
            fused = _fused_step(self.impl, planes)
            if fused is None:
                self._step_plain(planes, planes.grad)
            else:
                self._step_fused(planes, planes.grad, fused)
        return loss

    def _step_plain(self, planes: Tensor, grad: Tensor) -> None:
        if any(self.weights):
            offset = planes.detach().clone()
            if self.reference is not None:
                offset -= self.reference
            with torch.enable_grad():
                total = plane_regularisation(offset.requires_grad_(), *self.weights)
            grad += torch.autograd.grad(total, offset)[0]
        super().step()
        planes.clamp_(-1, 1)

    def _step_fused(self, planes: Tensor, grad: Tensor, fused: Callable[..., Any]) -> None:
        group, state = self.param_groups[0], self.state[planes]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(planes)
            state["exp_avg_sq"] = torch.zeros_like(planes)
        state["step"] += 1
        # Loading a state may have changed the layout of its tensors.
        for name in ("exp_avg", "exp_avg_sq"):
            if state[name].stride() != planes.stride():
                state[name] = channel_last(state[name])
        memory = planes.detach().permute(0, 2, 3, 1)
        if self._spare is None or self._spare.shape != memory.shape:
            self._spare = torch.empty_like(memory)
        reference = None if self.reference is None else self.reference.permute(0, 2, 3, 1)
        arrays = (
            memory,
            grad.permute(0, 2, 3, 1).contiguous(),
            reference,
            state["exp_avg"].permute(0, 2, 3, 1),
            state["exp_avg_sq"].permute(0, 2, 3, 1),
            self._spare,
        )
        copy = fused(*arrays, group, self.weights, int(state["step"]))
        planes.data, self._spare = self._spare.permute(0, 3, 1, 2), memory
        if copy is not None:
            from renderer.cuda.planes import remember_texels

            remember_texels(planes, copy)


def _in_channel_last_memory(planes: Tensor) -> bool:
    return planes.dtype == torch.float32 and planes.permute(0, 2, 3, 1).is_contiguous()


def _fused_step(impl: str, planes: Tensor) -> Callable[..., Any] | None:
    """The backend's step in one pass, where it has one for these planes and their memory."""
    backend = resolve(impl, planes)
    return backend.plane_step(planes) if _in_channel_last_memory(planes) else None
