"""Registers operations with PyTorch, so that torch.compile and torch.library.opcheck know them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

NAMESPACE = "triavatar"


def operation(
    name: str, schema: str, fake: Callable[..., Any], mutates: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], Any]:
    """Decorate an operation's implementation; what comes back is called like it.

    Args:
        name: of the operation, ``torch.ops.triavatar.<name>``.
        schema: its arguments and results.
        fake: makes results of the right shape and type without computing anything.
        mutates: arguments that it writes to.
    """

    def register(implementation: Callable[..., Any]) -> Any:
        registered = torch.library.custom_op(
            f"{NAMESPACE}::{name}", implementation, mutates_args=tuple(mutates), schema=schema
        )
        registered.register_fake(fake)
        return registered

    return register
