"""Beginning with the weights of a model that was trained before."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from runtime.errors import UserError


def take_weights(model: nn.Module, trained: dict[str, Tensor], folder: Path | None) -> None:
    """Load trained weights into an untrained model.

    Raises:
        UserError: the folder's model has another architecture, with the first part that differs.
    """
    own = model.state_dict()
    differing = sorted(
        name
        for name in own.keys() | trained.keys()
        if name not in own or name not in trained or own[name].shape != trained[name].shape
    )
    if differing:
        raise UserError(
            f"{folder} has another architecture than the settings under model ({differing[0]} "
            f"differs): give the settings that it was trained with"
        )
    model.load_state_dict(trained)
