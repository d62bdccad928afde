"""The run folder: what a stage writes while it works, and how it resumes."""

import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from runtime.described import Count, Described, parse_described, read_described
from runtime.errors import UserError
from runtime.files import (
    atomic_path,
    drop_half_line,
    read_text,
    remove_stale,
    write_json,
    write_text,
)
from runtime.formats.settings_files import refuse_other_run, run_yaml
from runtime.formats.tensor_files import check_like, load_state
from runtime.ownership import lock_folder

_MOST_ROWS = 2**29  # bytes of a log
_STEP = re.compile(r"step_(\d+)")


def read_rows(file: Path) -> list[dict[str, float]]:
    """The rows of a run's ``stats.jsonl``; none where there is no such file.

    Raises:
        UserError: a line is no row of numbers.
    """
    if not file.exists():
        return []
    lines = read_text(file, _MOST_ROWS).splitlines()
    rows = [parse_described(_Row, line, f"{file}, line {i + 1}") for i, line in enumerate(lines)]
    return [row.model_dump() for row in rows]


class _Row(Described):
    """A line of ``stats.jsonl``: numbers by name."""

    __pydantic_extra__: dict[str, float]
    step: Count


class RunFolder:
    """``config.yaml``, ``log.txt``, ``stats.jsonl``, ``state/``, ``snapshots/``, ``images/``.

    Opening the folder of an earlier run with the same configuration resumes it. Only the main
    process of a distributed run writes; on the others every writing method does nothing.

    Attributes:
        path: the run folder.
        resumed: whether the folder held a run already.
    """

    def __init__(
        self,
        path: str | Path,
        config: Any,
        stage: str,
        is_main: bool = True,
        shared: bool = False,
    ) -> None:
        """Make the folder or open it again.

        Args:
            path: the run folder.
            config: the stage's resolved dataclass, stored as ``config.yaml``.
            stage: name of the stage, e.g. "fit-decoder".
            is_main: whether this process writes.
            shared: whether several runs of the same command may write at once.

        Raises:
            UserError: the folder belongs to another stage or to other settings (fields declared
                ``field(metadata={"resumable": True})`` may change), or another process is at work
                in it.
        """
        self.path = Path(path)
        self.stage = stage
        self.is_main = is_main
        self.state = self.path / "state"
        self.snapshots = self.path / "snapshots"
        self.images = self.path / "images"
        settings = run_yaml(stage, config)
        recorded = self.path / "config.yaml"
        self.resumed = recorded.exists()
        if self.resumed:
            refuse_other_run(read_text(recorded), self.path, stage, config)
        if not is_main:
            return
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file; give --output_dir a folder.")
        if not shared:
            lock_folder(self.path)
        for folder in (self.state, self.snapshots, self.images):
            folder.mkdir(parents=True, exist_ok=True)
        remove_stale(self.path)
        for leftover in self.state.glob("new_*"):
            shutil.rmtree(leftover)
        # A run killed while appending leaves half a line; later lines must not join it.
        for name in ("stats.jsonl", "log.txt"):
            drop_half_line(self.path / name)
        write_text(recorded, settings)
        self.log(f"{stage}: {'resuming' if self.resumed else 'started'} in {self.path}")

    def depends_on(self, inputs: dict[str, Any]) -> None:
        """Hold the run to what its inputs are, which their paths don't tell: hashes and the like.

        Args:
            inputs: plain values by name; kept in ``inputs.json``.

        Raises:
            UserError: the run was begun with others.
        """
        file = self.path / "inputs.json"
        if self.resumed and file.exists():
            before = read_described(Described, file).model_extra or {}
            for name, value in inputs.items():
                if before.get(name) != value:
                    raise UserError(
                        f"{self.path} was begun with another {name} ({before.get(name)}, now "
                        f"{value}); put the inputs back or give another --output_dir."
                    )
        elif self.is_main:
            write_json(file, inputs)

    def _append(self, name: str, line: str) -> None:
        with open(self.path / name, "a", encoding="utf-8") as handle:
            handle.write(line + "\n")

    def log(self, text: str) -> None:
        """Print one line above the progress bar and add it to ``log.txt``."""
        if self.is_main:
            tqdm.write(text)
            self._append("log.txt", f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Add one line ``{"step": …, name: value, …}`` to ``stats.jsonl``."""
        if self.is_main:
            row = {"step": int(step)} | {name: float(value) for name, value in values.items()}
            self._append("stats.jsonl", json.dumps(row))

    def read_scalars(self) -> list[dict[str, float]]:
        """The rows of ``stats.jsonl`` so far."""
        return read_rows(self.path / "stats.jsonl")

    def rewind(self, step: int) -> None:
        """Drop the rows of ``stats.jsonl`` after ``step``; call it after loading a state."""
        if self.is_main and (rows := self.read_scalars()):
            kept = [json.dumps(row) + "\n" for row in rows if row["step"] <= step]
            write_text(self.path / "stats.jsonl", "".join(kept))

    def save_image(self, name: str, image: np.ndarray) -> None:
        """Write uint8 ``image`` [H, W, 3|4] to ``images/<name>`` (``.png`` when no suffix)."""
        if self.is_main:
            file = self.images / name
            with atomic_path(file if file.suffix else file.with_suffix(".png")) as temporary:
                Image.fromarray(image).save(temporary)

    @property
    def state_file(self) -> Path:
        """Return where :meth:`save_state` writes."""
        return self.state / "latest.pt"

    def save_state(self, step: int, state: dict[str, Any]) -> None:
        """Replace ``state/latest.pt`` by ``state`` (tensors and plain values) at ``step``."""
        if self.is_main:
            with atomic_path(self.state_file) as temporary:
                torch.save({"step": int(step), **state}, temporary)
            self._mark_saved()

    def _mark_saved(self) -> None:
        mark = self.state / "saved"
        if not mark.exists():
            write_text(mark, "States have been saved here; without them the run is not resumed.\n")

    def _refuse_lost_state(self) -> None:
        """Starting again from nothing would replace what the run has made.

        Raises:
            UserError: there were saved states, and none is left.
        """
        if (self.state / "saved").exists():
            raise UserError(
                f"{self.path} has saved its state before, but none is left in {self.state}; put "
                f"it back, give another --output_dir, or delete {self.state} to start again."
            )

    def load_state(self) -> dict[str, Any] | None:
        """The last saved state with its ``step``, tensors on the CPU; None before the first.

        Raises:
            UserError: the file can't be read, or is gone.
        """
        file = self.state_file
        if not file.exists():
            self._refuse_lost_state()
            return None
        cure = f"delete {self.state} to start the stage afresh"
        state = load_state(file, cure)
        check_like(state, {"step": 0}, file, cure)
        return state

    def new_state_dir(self, step: int) -> Path:
        """A temporary folder for a state made of several files; see ``commit_state_dir``."""
        folder = self.state / f"new_{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def commit_state_dir(self, folder: Path, step: int) -> None:
        """Rename ``folder`` to ``state/step_<step>`` and delete the older ones."""
        if not self.is_main:
            return
        for file in folder.rglob("*"):
            if file.is_file():
                with open(file, "rb") as handle:
                    os.fsync(handle.fileno())
        final = self.state / f"step_{step:08d}"
        if final.exists():
            shutil.rmtree(final)
        os.rename(folder, final)
        self._mark_saved()
        for older in self.state.glob("step_*"):
            if older != final:
                shutil.rmtree(older)

    def latest_state_dir(self) -> tuple[int, Path] | None:
        """The newest committed state folder and its step; None before the first.

        Raises:
            UserError: there were some, and all are gone.
        """
        found = [
            (int(match[1]), folder)
            for folder in self.state.glob("step_*")
            if (match := _STEP.fullmatch(folder.name))
        ]
        if not found:
            self._refuse_lost_state()
        return max(found) if found else None
