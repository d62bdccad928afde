"""Findings: the reports of checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Finding:
    """One fault and its cure.

    Attributes:
        check: short stable name, e.g. "focal-unit".
        message: what is wrong, one sentence without its full stop.
        cure: what to do, one sentence without its full stop.
        where: the subjects or files concerned, relative to the set.
        fix: what ``dataset.json`` must say instead, merged into it by :func:`merge`; none where it
            cannot express the cure.
    """

    check: str
    message: str
    cure: str
    where: list[str] = field(default_factory=list)
    fix: dict[str, Any] | None = None

    @property
    def effect(self) -> str:
        """Return what applying the fix does, in a few words."""
        if self.fix is None:
            return "dataset.json cannot express it"
        if self.fix.keys() == {"objects"}:
            return "--fix leaves them out"
        return "--fix does it"


def merge(description: dict[str, Any], fix: dict[str, Any]) -> dict[str, Any]:
    """``description`` with ``fix`` in it: tables are merged, lists of excluded views are joined."""
    out = dict(description)
    for key, value in fix.items():
        old = out.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            out[key] = merge(old, value)
        elif key == "exclude" and isinstance(value, list):
            known = [frame for frame in old if type(frame) is int] if isinstance(old, list) else []
            out[key] = old if old == "all" else sorted({*known, *value})
        else:
            out[key] = value
    return out


def exclusion(views: list[tuple[str, int]], portrait_frame: int) -> dict[str, Any]:
    """The fix that leaves views (subject, frame) out; a subject without its portrait goes whole."""
    objects: dict[str, Any] = {}
    for name, frame in views:
        entry = objects.setdefault(name, {"exclude": []})
        if frame == portrait_frame:
            entry["exclude"] = "all"
        elif entry["exclude"] != "all":
            entry["exclude"].append(frame)
    return {"objects": objects}


def listed(where: list[str], most: int = 3) -> str:
    """The first few of a list, for a sentence."""
    rest = len(where) - most
    return ", ".join(where[:most]) + (f" and {rest} more" if rest > 0 else "")
