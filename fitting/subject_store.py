"""The store of stage 1, subjects between their visits: triplane, consolidation pair, moments.

A file per subject and version, the version being the number of the visit that wrote it. What a
visit changes is written first under a new version; the state file that names the versions is
replaced after that, and the old versions go last. Killed in between, a run finds the old ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fitting.consolidation import Consolidation
from runtime.files import atomic_path
from runtime.formats.tensor_files import load_state, load_tensors, save_tensors

CURE = "start in a new output folder"
"""What to do about a damaged state of stage 1."""
# Of Adam's state.
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class SubjectStore:
    """The subjects' files.

    Args:
        folder: where they lie.
        names: the subjects.
        device: where consolidation pairs are read to.
        shape: of every triplane, [3, C, H, H]; None where it may be any.

    Attributes:
        versions: version of each subject's file; 0 = not visited yet.
    """

    def __init__(
        self,
        folder: Path,
        names: Iterable[str],
        device: torch.device,
        shape: tuple[int | None, ...] = (3, None, None, None),
    ):
        self.folder, self.device, self.shape = folder, device, shape
        self.versions = dict.fromkeys(names, 0)

    @property
    def visited(self) -> list[str]:
        """Subjects that have a triplane."""
        return [name for name, version in self.versions.items() if version]

    def path(self, name: str, version: int) -> Path:
        return self.folder / f"{name}.{version}.safetensors"

    def planes(self, name: str) -> Tensor:
        """The triplane [3, C, H, H] of a visited subject, on the CPU."""
        return self._load(name)["planes"]

    def _load(self, name: str) -> dict[str, Tensor]:
        path = self.path(name, self.versions[name])
        return load_tensors(path, {"planes": self.shape})[0]

    def pair(self, name: str) -> Consolidation | None:
        """The consolidation pair of the subject's last visit, if that stored one."""
        if not self.versions[name]:
            return None
        tensors = self._load(name)
        if "anchor" not in tensors:
            return None
        return Consolidation(
            tensors["importance"].to(self.device), tensors["anchor"].to(self.device)
        )

    def mean_planes(self) -> Tensor | None:
        """Mean of the stored triplanes [3, C, H, H]; None before the first."""
        names = self.visited
        if not names:
            return None
        return sum((self.planes(name) for name in names), torch.zeros(())) / len(names)

    def moments(self, name: str) -> dict[str, Tensor]:
        """The triplane's optimiser as :meth:`save` was given it; empty if it was not."""
        if not self.versions[name]:
            return {}
        tensors = self._load(name)
        return {key: tensors[key] for key in MOMENTS if key in tensors}

    def save(
        self,
        name: str,
        version: int,
        planes: Tensor,
        pair: Consolidation | None,
        moments: dict[str, Tensor] | None = None,
    ) -> None:
        """Write a new version beside the one in use.

        Args:
            moments: the triplane's optimiser: step, exp_avg, exp_avg_sq.
        """
        tensors = {"planes": planes, **(moments or {})}
        if pair is not None:
            tensors |= {"importance": pair.importance, "anchor": pair.anchor}
        save_tensors(self.path(name, version), tensors)

    def remove_others(self, names: Iterable[str] | None = None) -> None:
        """Delete the versions of ``names`` (default: all) that are not in use."""
        names = set(self.versions if names is None else names)
        for file in self.folder.glob("*.safetensors"):
            name, version = file.name.removesuffix(".safetensors").rsplit(".", 1)
            if name in names and version != str(self.versions[name]):
                file.unlink(missing_ok=True)

    def save_visit(self, name: str, done: int, state: dict[str, Any]) -> None:
        """Write how far a visit has come after ``done`` steps, for those that take long."""
        with atomic_path(self._visit_file(name, done)) as temporary:
            torch.save(state, temporary)

    def visit_state(self, name: str, done: int) -> tuple[dict[str, Any], Path]:
        """Return what :meth:`save_visit` wrote, and the file.

        Raises:
            UserError: it is gone or can't be read.
        """
        file = self._visit_file(name, done)
        return load_state(file, CURE), file

    def remove_visits(self, names: Iterable[str], keep: int = 0) -> None:
        """Delete what :meth:`save_visit` wrote of ``names`` at other steps than ``keep``."""
        for name in names:
            for file in self.folder.glob(f"{name}.visit*.pt"):
                if file != self._visit_file(name, keep):
                    file.unlink(missing_ok=True)

    def _visit_file(self, name: str, done: int) -> Path:
        return self.folder / f"{name}.visit{done}.pt"
