"""Adam for triplanes on the GPU: regularisers, step, clamp and half copy in one pass.

Legend: C channels, H W plane size.
"""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor

from renderer.cuda.modules import load_module
from renderer.cuda.planes import remember_texels
from renderer.triplane import check_planes

_BLOCK = 256
_NO_MACROS: dict[str, int] = {}


class PlaneStep(ctypes.Structure):
    _fields_ = [
        ("planes", ctypes.c_int),
        ("height", ctypes.c_int),
        ("width", ctypes.c_int),
        ("quads", ctypes.c_int),
        ("rate", ctypes.c_float),
        ("beta1", ctypes.c_float),
        ("beta2", ctypes.c_float),
        ("root", ctypes.c_float),
        ("epsilon", ctypes.c_float),
        ("along_h", ctypes.c_float),
        ("along_w", ctypes.c_float),
        ("l1", ctypes.c_float),
        ("l2", ctypes.c_float),
    ]


def channel_last(planes: Tensor) -> Tensor:
    """A copy of [3, C, H, W] whose channels lie together in memory; same shape and values."""
    check_planes(planes, batched=False)
    copy = planes.detach().permute(0, 2, 3, 1).float().clone(memory_format=torch.contiguous_format)
    return copy.permute(0, 3, 1, 2)


class PlaneAdam(torch.optim.Optimizer):
    """Adam of one triplane under a regularised loss, values kept in [-1, 1].

    A step is that of :class:`torch.optim.Adam` on ``loss + tv_weight · total_variation(planes) +
    l1_weight · mean |planes| + l2_weight · mean planes²``, followed by a clamp; the caller
    differentiates ``loss`` alone.

    Args:
        planes: a leaf [3, C, H, W] fp32 from :func:`channel_last`, C a multiple of 4. Its memory is
            exchanged at each step; views of it made before go stale.
        lr, betas, eps: as Adam's.
        tv_weight, l1_weight, l2_weight: of the regularisers.
    """

    def __init__(
        self,
        planes: Tensor,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-15,
        tv_weight: float = 0.0,
        l1_weight: float = 0.0,
        l2_weight: float = 0.0,
    ):
        check_planes(planes, batched=False)
        if planes.dtype != torch.float32 or not planes.permute(0, 2, 3, 1).is_contiguous():
            raise ValueError("planes must be fp32 and channel-last: pass them through channel_last")
        if planes.shape[1] % 4:
            raise ValueError(f"channels must be a multiple of 4, got {planes.shape[1]}")
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "tv_weight": tv_weight,
            "l1_weight": l1_weight,
            "l2_weight": l2_weight,
        }
        super().__init__([planes], defaults)
        self._spare: Tensor | None = None

    @torch.no_grad()
    def step(self, closure=None):
        """One step from ``planes.grad``."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for planes in group["params"]:
                if planes.grad is not None:
                    self._step_one(planes, group)
        return loss

    def _step_one(self, planes: Tensor, group: dict) -> None:
        memory = planes.detach().permute(0, 2, 3, 1)
        state = self.state[planes]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(planes)
            state["exp_avg_sq"] = torch.zeros_like(planes)
        state["step"] += 1
        # Loading a state may have changed the layout of its tensors.
        for name in ("exp_avg", "exp_avg_sq"):
            if state[name].stride() != planes.stride():
                state[name] = channel_last(state[name])
        if self._spare is None or self._spare.shape != memory.shape:
            self._spare = torch.empty_like(memory)
        half = torch.empty_like(memory, dtype=torch.float16)
        arguments = [
            memory,
            planes.grad.permute(0, 2, 3, 1).contiguous(),
            state["exp_avg"].permute(0, 2, 3, 1),
            state["exp_avg_sq"].permute(0, 2, 3, 1),
            self._spare,
            half,
            _structure(planes, group, state["step"]),
        ]
        grid = [(memory.numel() // 4 + _BLOCK - 1) // _BLOCK]
        module = load_module("plane_step.cu", _NO_MACROS, planes.device)
        module.launch("plane_step", grid, _BLOCK, 0, arguments)
        planes.data, self._spare = self._spare.permute(0, 3, 1, 2), memory
        remember_texels(planes, half[None])


def _structure(planes: Tensor, group: dict, step: int) -> PlaneStep:
    count, channels, height, width = planes.shape
    beta1, beta2 = group["betas"]
    values = planes.numel()
    # A plane of one texel's height (or width) has no differences along it.
    along_h = count * channels * max(height - 1, 1) * width
    along_w = count * channels * height * max(width - 1, 1)
    return PlaneStep(
        count,
        height,
        width,
        channels // 4,
        group["lr"] / (1 - beta1**step),
        beta1,
        beta2,
        1 / math.sqrt(1 - beta2**step),
        group["eps"],
        group["tv_weight"] * 2 / along_h,
        group["tv_weight"] * 2 / along_w,
        group["l1_weight"] / values,
        group["l2_weight"] * 2 / values,
    )
