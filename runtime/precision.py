"""Precision of fp32 matrix products.

PyTorch's setting covers our CPU kernels too, whose products are PyTorch's: with "medium", a CPU
with bf16 instructions (AMX, AVX-512 BF16) rounds the factors to bf16 and sums in fp32, a GPU with
tensor cores uses TF32 or bf16. Elsewhere it changes nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from runtime.errors import UserError

VARIABLE = "TRIAVATAR_MATMUL"
CHOICES = ("highest", "high", "medium")


def apply_matmul_precision() -> None:
    """Follow the environment's ``TRIAVATAR_MATMUL``: highest (also without it), high or medium.

    Raises:
        UserError: it is none of these.
    """
    asked = os.environ.get(VARIABLE)
    if asked is None:
        return
    if asked not in CHOICES:
        raise UserError(f'{VARIABLE} is "{asked}"; use {", ".join(CHOICES[:-1])} or {CHOICES[-1]}.')
    torch.set_float32_matmul_precision(asked)


def cpu_has_bf16() -> bool:
    """Return whether this CPU multiplies bf16 matrices faster than fp32 ones."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """The setting ``name`` for as long as the context lasts."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
