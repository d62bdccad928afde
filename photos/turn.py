"""The turn of a head to the side, from its face's symmetry about the eyes' middle."""

from __future__ import annotations

import numpy as np

from photos.geometry import load_cv2, turn_and_scale, warp

SIDE, FACE = 160, 100  # patch, and the frontal cascade's box in it, in pixels
MIDDLE = (80, 50)  # where the patch has the middle between the eyes
# Bands of the patch: first and last row, columns compared on either side of an axis, how far the
# axis may leave the middle; then how many degrees the best correlation over all axes, and that at
# the middle, take off (ridge regression of |turn| on renders of 32 people from -45° to 45°).
BANDS = (
    (56, 76, 24, 20, 5.5, 11.2),  # nose and cheeks
    (76, 96, 24, 20, 0.5, 5.2),  # mouth and cheeks
    (62, 80, 14, 20, 8.3, 0.9),  # nose
    (80, 98, 16, 20, 21.2, 7.0),  # mouth
    (42, 58, 30, 12, 27.3, 2.7),  # eyes
)
NO_SYMMETRY = 82.7  # degrees for a face that has none


def estimate_turn(grey: np.ndarray, eyes: np.ndarray, roll: float, width: float) -> float:
    """Estimate of |yaw| in degrees, good to about 5° up to 30°.

    Args:
        grey: photograph, uint8 [H, W].
        eyes: [2, 2] (x, y) of both eyes in pixels.
        roll: angle of their line in degrees.
        width: of the frontal cascade's box round the face, in pixels.
    """
    cv2 = load_cv2()
    x, y = eyes.mean(0)
    to_patch = turn_and_scale((float(x), float(y)), roll, FACE / width, MIDDLE)
    patch = warp(grey, to_patch, SIDE, SIDE).astype(np.float32)
    turn = NO_SYMMETRY
    for first, last, half, reach, at_best, at_middle in BANDS:
        band = cv2.GaussianBlur(patch[first:last], (0, 0), 1.2)
        # Edges, on which light from the side tells less than on the grey levels.
        across = np.abs(cv2.Sobel(band, cv2.CV_32F, 1, 0))
        edges = np.concatenate([across, cv2.Sobel(band, cv2.CV_32F, 0, 1)])
        symmetry = _symmetry(edges, MIDDLE[0], half, reach)
        turn -= at_best * symmetry.max() + at_middle * symmetry[2 * reach]
    return float(np.clip(turn, 0, 90))


def _symmetry(edges: np.ndarray, middle: int, half: int, reach: int) -> np.ndarray:
    """Normalised correlation of both sides of axes from ``middle`` - reach to + reach.

    Args:
        edges: [H, W]; half: columns compared on either side of the axis.

    Returns:
        [4 · reach + 1], an axis on every column and between columns; 1 is perfect symmetry.
    """
    steps = np.arange(1, half + 1)
    out = np.empty(4 * reach + 1)
    for k, doubled in enumerate(range(2 * (middle - reach), 2 * (middle + reach) + 1)):
        left, right = edges[:, (doubled + 1) // 2 - steps], edges[:, doubled // 2 + steps]
        a, b = left - left.mean(), right - right.mean()
        out[k] = (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-6)
    return out
