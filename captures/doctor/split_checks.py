"""Splits of ``dataset.json`` that name what is not there or give one thing to two sides."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from captures.doctor.findings import Finding, listed


def check_splits(description: dict[str, Any], names: list[str], frames: set[int]) -> list[Finding]:
    """Compare the stated splits with the folders.

    Args:
        description: content of ``dataset.json``.
        names: all folders of the set.
        frames: numbers of all frames of the subjects looked at, those left out included.
    """
    splits = description.get("splits", {})
    found: list[Finding] = []
    for key, known in (("identities", set(names)), ("views", frames)):
        parts = splits.get(key)
        if not isinstance(parts, dict):
            continue
        unknown = sorted({x for part in parts.values() for x in part} - known)
        if unknown:
            found.append(
                Finding(
                    "split-unknown",
                    f"splits.{key} names {len(unknown)} that no folder holds: "
                    f"{listed([str(x) for x in unknown])}",
                    "remove them from the split",
                    [str(x) for x in unknown],
                    {"splits": {key: {k: [x for x in v if x in known] for k, v in parts.items()}}},
                )
            )
        shared: dict[str, set[Any]] = {}
        for a, b in combinations(parts, 2):
            both = set(parts[a]) & set(parts[b])
            if both:
                # The held-out side keeps them: a figure on views trained on would be worthless.
                shared.setdefault("train" if "train" in (a, b) else a, set()).update(both)
        if shared:
            both = sorted(set().union(*shared.values()))
            known_only = {k: [x for x in v if x in known] for k, v in parts.items()}
            found.append(
                Finding(
                    "split-leak",
                    f"splits.{key} gives {len(both)} to two sides at once: "
                    f"{listed([str(x) for x in both])}",
                    "take them out of train, so that what is measured was not trained on",
                    [str(x) for x in both],
                    {
                        "splits": {
                            key: {
                                k: [x for x in v if x not in shared.get(k, ())]
                                for k, v in known_only.items()
                            }
                        }
                    },
                )
            )
        elif key == "identities" and parts.get("train") == []:
            found.append(
                Finding(
                    "split-empty",
                    "splits.identities.train is empty, so that nothing would be trained on",
                    "list the training subjects, or remove splits.identities",
                )
            )
    return found
