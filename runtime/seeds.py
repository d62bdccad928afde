"""Stateless randomness: a stream is named by its key, so resuming and splitting repeat it."""

import hashlib

import numpy as np
import torch


def seed_of(*key: int | str) -> int:
    """A 63-bit seed from a key such as ``(seed, "rays", step, index)``."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*key: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator on ``device`` whose numbers depend on the key alone."""
    return torch.Generator(device=device).manual_seed(seed_of(*key))


def numpy_generator(*key: int | str) -> np.random.Generator:
    """A NumPy generator whose numbers depend on the key alone."""
    return np.random.default_rng(seed_of(*key))
