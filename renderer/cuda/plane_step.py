"""The optimiser step of a triplane on the GPU in one pass.

See :mod:`fitting.plane_adam`.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from renderer.cuda.library import operation
from renderer.cuda.modules import load_module
from renderer.plane_step import step_constants

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


def step_planes(
    planes: Tensor,
    grad: Tensor,
    reference: Tensor | None,
    mean: Tensor,
    square: Tensor,
    out: Tensor,
    group: dict,
    weights: tuple[float, float, float],
    step: int,
) -> Tensor:
    """One step of tensors [3, H, W, C] fp32, C a multiple of 4; new values go to ``out``.

    Args:
        reference: what the regularisers measure from; zero without.
        mean, square: Adam's moments; changed in place.
        group: Adam's lr, betas and eps.
        weights: of total variation, L1 and L2.
        step: 1 for the first.

    Returns:
        The new values in half precision, [1, 3, H, W, C], as the field's kernels read them.
    """
    constants = list(step_constants(planes.shape, group, weights, step))
    return _plane_step(planes, grad, reference, mean, square, out, constants)


def _fake_step(planes, *rest):
    return planes.new_empty(1, *planes.shape, dtype=torch.float16)


@operation(
    "plane_step",
    "(Tensor planes, Tensor grad, Tensor? reference, Tensor(a!) mean, Tensor(b!) square, "
    "Tensor(c!) out, float[] constants) -> Tensor",
    fake=_fake_step,
    mutates=["mean", "square", "out"],
)
def _plane_step(planes, grad, reference, mean, square, out, constants):
    count, height, width, channels = planes.shape
    half = _fake_step(planes)
    arguments = [
        planes,
        grad,
        reference,
        mean,
        square,
        out,
        half,
        PlaneStep(count, height, width, channels // 4, *constants),
    ]
    grid = [(planes.numel() // 4 + _BLOCK - 1) // _BLOCK]
    module = load_module("plane_step.cu", _NO_MACROS, planes.device)
    module.launch("plane_step", grid, _BLOCK, 0, arguments)
    return half
