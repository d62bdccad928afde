"""Which cut of the field's kernels is fastest on a card: measured at first use and kept on disk.

Every cut gives the same numbers but for rounding; one that does not, or does not run, is left out.
``TRIAVATAR_MEASURE=0`` takes the likely best without measuring.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from renderer.cuda.availability import capability_of, multiprocessors
from renderer.cuda.build import cache_folder, source_files
from renderer.cuda.field.layout import (
    DecoderShape,
    FieldLayout,
    candidate_layouts,
    choose_layout,
    variations,
)
from renderer.cuda.field.trial import Trial
from runtime.errors import UserError
from runtime.files import read_json, write_json

logger = logging.getLogger("triavatar.renderer")
SWITCH = "TRIAVATAR_MEASURE"
TOLERANCE = 2e-2
"""How far a cut's results may be from those of the first, relative to their size."""
# A card's place in any test that runs elsewhere.
_ANY_CARD = 70

_chosen: dict[tuple[DecoderShape, torch.device, bool], FieldLayout] = {}


class Measured(Protocol):
    """What cuts are tried on; see :class:`renderer.cuda.field.trial.Trial`."""

    def run(self, layout: FieldLayout) -> list[Tensor]: ...

    def milliseconds(self, layout: FieldLayout) -> float: ...


def layout_for(shape: DecoderShape, device: torch.device, *, backward: bool) -> FieldLayout:
    """Return how the kernels are cut on a device, measured where that pays.

    Raises:
        UserError: if no cut fits.
    """
    key = (shape, device, backward)
    if key not in _chosen:
        if device.type == "cuda" and os.environ.get(SWITCH) != "0":
            _chosen[key] = kept_choice(shape, device, backward)
        else:
            capability = capability_of(device) if device.type == "cuda" else _ANY_CARD
            _chosen[key] = choose_layout(shape, capability, backward=backward)
    return _chosen[key]


def kept_choice(
    shape: DecoderShape, device: torch.device, backward: bool, folder: Path | None = None
) -> FieldLayout:
    """The fastest cut, from disk where it was measured before.

    Args:
        folder: where choices are kept; the kernels' own by default.
    """
    capability = capability_of(device) if device.type == "cuda" else 90
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "host"
    candidates = candidate_layouts(shape, capability, backward=backward)
    if not candidates:
        return choose_layout(shape, capability, backward=backward)  # says what is missing
    file = (folder or cache_folder()) / f"cut-{_key(card, device, candidates)}.json"
    with _alone(file):
        found = _read(file, candidates)
        if found is None:
            logger.info("measuring %d cuts of the CUDA kernels on %s, once", len(candidates), card)
            began = time.perf_counter()
            trial = Trial(shape, device, backward=backward)
            found, rows = fastest(candidates, trial, backward)
            record = {"card": card, "backward": backward, "seconds": time.perf_counter() - began}
            write_json(file, record | {"chosen": asdict(found), "cuts": rows})
    return found


def fastest(
    candidates: list[FieldLayout], trial: Measured, backward: bool
) -> tuple[FieldLayout, list[dict[str, Any]]]:
    """Return the fastest of some cuts, on the way back of their variations too, and a row for each.

    Raises:
        RuntimeError: the first does not run.
    """
    expected = trial.run(candidates[0])
    rows: list[dict[str, Any]] = []
    times: dict[FieldLayout, float] = {}

    def measure(layout: FieldLayout) -> None:
        row: dict[str, Any] = asdict(layout)
        del row["shape"]
        rows.append(row)
        try:
            wrong = difference(trial.run(layout), expected)
            if wrong > TOLERANCE:
                row["left_out"] = f"its results differ by {wrong:.1%}"
                logger.warning("a cut of the CUDA kernels is left out: %s", row["left_out"])
                return
            times[layout] = row["milliseconds"] = trial.milliseconds(layout)
        except RuntimeError as error:  # too many registers for its threads, say
            row["left_out"] = str(error)

    for layout in candidates:
        measure(layout)
    if times and backward:
        for layout in variations(min(times, key=times.__getitem__)):
            measure(layout)
    return min(times, key=times.__getitem__, default=candidates[0]), rows


def difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest ‖difference‖ / ‖expected‖; infinite where anything is not finite."""
    worst = 0.0
    for have, want in zip(found, expected, strict=True):
        error = float((have - want).norm() / want.norm().clamp(min=1e-30))
        worst = max(worst, error if error == error else float("inf"))
    return worst


@contextlib.contextmanager
def _alone(file: Path):
    """One process measures at a time, and the next one reads what it found."""
    from filelock import FileLock

    with FileLock(f"{file}.lock"):
        yield


def _key(card: str, device: torch.device, candidates: list[FieldLayout]) -> str:
    parts = (card, multiprocessors(device), candidates, *sorted(source_files().items()))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _read(file: Path, candidates: list[FieldLayout]) -> FieldLayout | None:
    """What was chosen, if it is one of today's candidates or their variations."""
    try:
        chosen = read_json(file)["chosen"]
    except (UserError, KeyError, TypeError, OSError):
        return None
    known = [*candidates, *(other for layout in candidates for other in variations(layout))]
    return next((layout for layout in known if asdict(layout) == chosen), None)
