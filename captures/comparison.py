"""Side-by-side pictures of truth and rendering."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from captures.multiview import Views
from runtime.files import atomic_path


def to_uint8(image: Tensor) -> np.ndarray:
    """[..., 3] in [0, 1] → uint8 array."""
    return (image.detach().cpu().clamp(0, 1) * 255 + 0.5).byte().numpy()


def comparison_sheet(views: Views, images: Tensor, columns: int = 6) -> np.ndarray:
    """Truth above rendering, view by view, uint8 [2·H, columns·W, 3]."""
    columns = min(columns, len(views.frames))
    truth = to_uint8(views.composited(1.0)[:columns])
    ours = to_uint8(images[:columns])
    rows = [np.concatenate(list(row), axis=1) for row in (truth, ours)]
    return np.concatenate(rows, axis=0)


def save_sheet(path: Path, picture: np.ndarray) -> None:
    """Write uint8 [H, W, 3], atomically; the suffix gives the format."""
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary)
