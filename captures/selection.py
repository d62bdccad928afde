"""Settings that select the subjects of a set which a stage works on; stages inherit them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from captures.multiview import select_names
from runtime.config import setting


@dataclass(kw_only=True)
class NameSelection:
    """Selects the names of a list that a stage works on."""

    txt_file: Path | None = None
    """Text file with one name per line, in the order to use; replaces the stage's own list."""
    start_idx: int = 0
    """First name of the list."""
    end_idx: int | None = None
    """Name of the list to stop before; the list's end without it."""

    def chosen(self, default: list[str], known: list[str] | None = None) -> list[str]:
        """The selected names; see :func:`captures.multiview.select_names`."""
        return select_names(default, self.txt_file, self.start_idx, self.end_idx, known)


@dataclass(kw_only=True)
class SetConvention:
    """Says how a multi-view set is read."""

    convention: str | None = None
    """Camera convention of a set without dataset.json, e.g. rodinhd."""


@dataclass(kw_only=True)
class SubjectSelection(NameSelection, SetConvention):
    """Selects the subjects of a multi-view set that a stage works on."""


@dataclass(kw_only=True)
class ResumableNames(NameSelection):
    """A selection that may change from run to run of a folder: each name is work by itself."""

    txt_file: Path | None = setting(None, resumable=True)
    """Text file with one name per line; all there are without it."""
    start_idx: int = setting(0, resumable=True)
    """First name of the list."""
    end_idx: int | None = setting(None, resumable=True)
    """Name of the list to stop before; the list's end without it."""
