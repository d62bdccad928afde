"""Who is whom: each avatar against every subject."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from captures.cameras import Cameras


def same_cameras(a: Cameras, b: Cameras) -> bool:
    """Return whether two sets of views were taken from the same places."""
    return (
        a.c2w.shape == b.c2w.shape
        and torch.allclose(a.c2w, b.c2w, atol=1e-5)
        and torch.allclose(a.fx, b.fx)
        and (a.width, a.height) == (b.width, b.height)
    )


@dataclass
class Match:
    """Each avatar against every subject.

    Attributes:
        subjects: names, the order of the matrix's columns.
        psnr: avatar → PSNR in dB over the held-out views of every subject.
    """

    subjects: list[str]
    psnr: dict[str, list[float]]

    def summary(self, splits: Mapping[str, list[str]]) -> dict[str, Any]:
        """How many avatars are closest to their own subject; as stored in ``metrics.json``."""
        closest = {
            name: self.subjects[int(np.argmax(values))] for name, values in self.psnr.items()
        }
        own = {name for name, found in closest.items() if name == found}
        return {
            "correct": len(own),
            "of": len(closest),
            "by_identity_split": {
                split: {"correct": len(own & set(names)), "of": len(names)}
                for split, names in splits.items()
            },
            "closest": closest,
            "subjects": self.subjects,
            "psnr": self.psnr,
        }
