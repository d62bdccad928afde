"""Precision of matrix products, as the environment asks."""

import pytest
import torch

from runtime.errors import UserError
from runtime.precision import apply_matmul_precision, cpu_has_bf16, matmul_precision


def test_environment_sets_it(monkeypatch):
    with matmul_precision("highest"):
        monkeypatch.setenv("TRIAVATAR_MATMUL", "medium")
        apply_matmul_precision()
        assert torch.get_float32_matmul_precision() == "medium"
        monkeypatch.delenv("TRIAVATAR_MATMUL")
        apply_matmul_precision()
        assert torch.get_float32_matmul_precision() == "medium"
        monkeypatch.setenv("TRIAVATAR_MATMUL", "low")
        with pytest.raises(UserError, match="highest, high or medium"):
            apply_matmul_precision()


def test_context_puts_it_back_even_after_an_error():
    before = torch.get_float32_matmul_precision()
    with pytest.raises(ValueError), matmul_precision("high"):
        assert torch.get_float32_matmul_precision() == "high"
        raise ValueError
    assert torch.get_float32_matmul_precision() == before
    assert isinstance(cpu_has_bf16(), bool)
