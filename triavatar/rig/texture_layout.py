"""One texture layout for every head: where skin, teeth, tongue and eyes lie in the square.

Legend: R corners, F triangles.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

# Left, top, width and height of the inner parts' squares, u to the right and v down.
INNER = {1: (0.02, 0.80, 0.2, 0.08), 2: (0.02, 0.90, 0.2, 0.08), 3: (0.24, 0.86, 0.12, 0.12),
         4: (0.40, 0.80, 0.18, 0.18), 5: (0.60, 0.80, 0.18, 0.18)}  # fmt: skip
_FACE = (0.01, 0.01, 0.98)
"""Left, top and width of the head's own chart."""
_ROW = (0.56, 0.02)
"""Top of the row of smaller charts, and the gap between them."""


def lay_out(uv: np.ndarray, faces: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Places in the texture, [R, 2] float32, u to the right and v down.

    Args:
        uv: [R, 2] as the assets have it, origin bottom left; inner parts in squares of their own.
        faces: [F, 3].
        part: of each triangle, [F].
    """
    out = np.zeros_like(uv)
    for index, (left, top, width, height) in INNER.items():
        rows = np.unique(faces[part == index])
        out[rows] = np.stack([left + width * uv[rows, 0], top + height * (1 - uv[rows, 1])], axis=1)
    charts = _charts(faces[part == 0], len(uv))
    largest, *others = sorted(charts, key=lambda rows: -_area(uv[rows]))
    # The assets' head lies on its side.
    turned = np.stack([uv[largest, 1], uv[largest, 0]], axis=1)
    low, high = turned.min(axis=0), turned.max(axis=0)
    scale = _FACE[2] / (high[0] - low[0])
    out[largest] = np.stack(
        [_FACE[0] + scale * (turned[:, 0] - low[0]), _FACE[1] + scale * (turned[:, 1] - low[1])],
        axis=1,
    )
    left = _ROW[1]
    for rows in others:
        low, high = uv[rows].min(axis=0), uv[rows].max(axis=0)
        size = (high - low) * scale
        shrink = min(1.0, 0.21 / size[1], 0.42 / size[0])
        local = (uv[rows] - low) * scale * shrink
        out[rows] = np.stack([left + local[:, 0], _ROW[0] + size[1] * shrink - local[:, 1]], axis=1)
        left += size[0] * shrink + _ROW[1]
    return np.clip(out, 0, 1).astype(np.float32)


def _charts(faces: np.ndarray, count: int) -> list[np.ndarray]:
    """Corners of each piece of the skin that hangs together in the texture."""
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    links = coo_matrix((np.ones(len(pairs)), pairs.T), (count, count))
    _, label = connected_components(links, directed=False)
    used = np.unique(faces)
    return [used[label[used] == each] for each in np.unique(label[used])]


def _area(uv: np.ndarray) -> float:
    return float(np.prod(uv.max(axis=0) - uv.min(axis=0)))
