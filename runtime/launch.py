"""Setting up accelerate for one process or many."""

import importlib.util
import os
from typing import TYPE_CHECKING, Any

from runtime.errors import UserError
from runtime.formats.settings_files import flatten
from runtime.runs import RunFolder

if TYPE_CHECKING:
    from accelerate import Accelerator

TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb"}
"""Tracker name → the module it needs."""


def process_index() -> int:
    """Rank of this process as the launcher's environment states it (0 without a launcher)."""
    return int(os.environ.get("RANK", "0"))


def process_count() -> int:
    """Return how many processes the launcher's environment states (1 without a launcher)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Return whether this is the process that writes; known before an Accelerator exists."""
    return process_index() == 0


SHARDING = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}
"""Variable by which accelerate's launcher asks for sharded training → its name."""


def refuse_sharding() -> None:
    """Refuse a launch with sharded weights; every process keeps the whole model here.

    Raises:
        UserError: names what was asked for, and what to do.
    """
    for variable, name in SHARDING.items():
        if os.environ.get(variable, "").lower() in ("1", "true", "yes"):
            raise UserError(
                f"{name} was asked for, which is not supported: published models with Adam take "
                "9 GiB a card, activations the rest; launch without it and give --fit_memory, "
                "which accumulates and checkpoints as the cards need."
            )


def make_accelerator(
    mixed_precision: str = "no",
    trackers: tuple[str, ...] | list[str] = (),
    run: RunFolder | None = None,
    gradient_accumulation: int = 1,
    cpu: bool = False,
    config: Any = None,
) -> "Accelerator":
    """An ``accelerate.Accelerator`` with the asked-for trackers started in the run folder.

    Args:
        mixed_precision: "no", "fp16" or "bf16".
        trackers: any of "tensorboard", "wandb".
        run: where the trackers write; needed when there are trackers.
        gradient_accumulation: micro-batches per optimiser step.
        cpu: stay on the CPU even where a GPU is there.
        config: the stage's dataclass, shown by the trackers.

    Raises:
        UserError: a tracker is unknown or its package is not installed; sharding was asked for.
    """
    refuse_sharding()
    from accelerate import Accelerator

    for name in trackers:
        if name not in TRACKERS:
            raise UserError(f'tracker "{name}" is unknown; use {" or ".join(TRACKERS)}.')
        if importlib.util.find_spec(TRACKERS[name]) is None:
            raise UserError(
                f'tracker "{name}" needs the package {TRACKERS[name]}; '
                f"pip install {TRACKERS[name]}."
            )
    accelerator = Accelerator(
        mixed_precision=mixed_precision,
        gradient_accumulation_steps=gradient_accumulation,
        log_with=list(trackers) or None,
        project_dir=str(run.path) if run is not None else None,
        cpu=cpu,
    )
    if trackers and run is not None:
        shown = flatten(config) if config is not None else {}
        plain = {
            name: value if isinstance(value, int | float | bool | str) else str(value)
            for name, value in shown.items()
        }
        accelerator.init_trackers(run.stage, config=plain)
    return accelerator
