"""Turning, scaling and resampling photographs. Coordinates are pixels, x right and y down."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from runtime.errors import UserError


def line_angle(eyes: np.ndarray) -> float:
    """Angle of the line through two points [2, 2] in degrees, y down."""
    (x0, y0), (x1, y1) = eyes
    return math.degrees(math.atan2(y1 - y0, x1 - x0))


def load_cv2() -> Any:
    """OpenCV; UserError when it is missing or has no cascades."""
    try:
        import cv2
    except ImportError:
        raise UserError(
            'finding faces needs OpenCV; pip install "opencv-python-headless<5".'
        ) from None
    return cv2


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Affine [2, 3] on points [..., 2]."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def inverse(matrix: np.ndarray) -> np.ndarray:
    """Inverse of an affine [2, 3]."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.concatenate([linear, -linear @ matrix[:, 2:]], axis=1)


def turn_and_scale(
    centre: tuple[float, float], degrees: float, scale: float, target: tuple[float, float]
) -> np.ndarray:
    """Affine [2, 3] that moves ``centre`` to ``target`` and makes a line at ``degrees`` level."""
    c, s = (scale * f(math.radians(degrees)) for f in (math.cos, math.sin))
    linear = np.array([[c, s], [-s, c]])
    return np.concatenate([linear, (np.array(target) - linear @ np.array(centre))[:, None]], 1)


def warp(picture: np.ndarray, matrix: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resample uint8 [H, W(, C)] through an affine, antialiased; edges are continued outwards."""
    cv2 = load_cv2()
    scale = math.sqrt(abs(np.linalg.det(matrix[:, :2])))
    if scale < 1:
        small = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        fx, fy = small[0] / picture.shape[1], small[1] / picture.shape[0]
        picture = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
        # Pixel centres lie at whole numbers for OpenCV: x → (x + ½) f − ½.
        shrink = np.array([[fx, 0, fx / 2 - 0.5], [0, fy, fy / 2 - 0.5]])
        back = inverse(shrink)
        matrix = np.concatenate(
            [matrix[:, :2] @ back[:, :2], apply(matrix, back[:, 2])[:, None]], 1
        )
    return cv2.warpAffine(
        picture, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
