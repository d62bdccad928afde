"""Camera and world conventions of data sets, converted once, where they enter.

A convention is a similarity transform from the file's world to ours and the axes of the file's
cameras. The house convention is described in :mod:`captures.cameras`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runtime.errors import UserError

# In OpenCV camera axes (x right, y down, z forward).
_DIRECTIONS = {
    "right": (1.0, 0.0, 0.0), "left": (-1.0, 0.0, 0.0), "down": (0.0, 1.0, 0.0),
    "up": (0.0, -1.0, 0.0), "forward": (0.0, 0.0, 1.0), "back": (0.0, 0.0, -1.0),
}  # fmt: skip
# Where the file camera's x, y and z point in the picture.
CAMERA_AXES = {
    "opencv": "right down forward",
    "blender": "right up back",
    "opengl": "right up back",
    "pytorch3d": "left up forward",
    "unity": "right up forward",  # left-handed, and so is its world
}


def camera_axes_matrix(axes: str) -> np.ndarray:
    """[3, 3] whose columns are the file camera's axes in OpenCV camera axes.

    Args:
        axes: one of :data:`CAMERA_AXES`, or three words such as "right up back" that say where
            the file camera's x, y and z point. Determinant −1 for left-handed axes.

    Raises:
        UserError: unknown words, or axes that do not span space.
    """
    words = CAMERA_AXES.get(axes, axes).split() if isinstance(axes, str) else []
    if len(words) != 3 or not set(words) <= _DIRECTIONS.keys():
        raise UserError(
            f"unknown camera axes '{axes}': choose one of {', '.join(CAMERA_AXES)}, or say where "
            "x, y and z point with three of right, left, up, down, forward, back"
        )
    matrix = np.array([_DIRECTIONS[word] for word in words]).T
    if abs(np.linalg.det(matrix)) < 0.5:
        raise UserError(f"camera axes '{axes}' name one direction twice")
    return matrix


def name_camera_axes(matrix: np.ndarray) -> str:
    """Inverse of :func:`camera_axes_matrix`; the shortest name ("opengl" for Blender's too)."""
    words = {np.array(d).tobytes(): word for word, d in _DIRECTIONS.items()}
    spelled = " ".join(words[(np.round(column) + 0.0).tobytes()] for column in matrix.T)
    return {text: name for name, text in CAMERA_AXES.items()}.get(spelled, spelled)


@dataclass(frozen=True)
class Convention:
    """The relation of a data set's cameras to ours.

    Attributes:
        world_from_file: similarity [4, 4] from the file's world to our world (rotation
            times one scale, plus translation). It mirrors where the file's world is left-handed,
            which needs left-handed camera axes too.
        camera_axes: see :func:`camera_axes_matrix`.
    """

    world_from_file: np.ndarray
    camera_axes: str = "opencv"

    def __post_init__(self) -> None:
        matrix = np.asarray(self.world_from_file, dtype=np.float64)
        object.__setattr__(self, "world_from_file", matrix)
        handed = np.linalg.det(camera_axes_matrix(self.camera_axes))
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise UserError("world_from_file must be a finite 4×4 matrix")
        linear = matrix[:3, :3]
        gram = linear.T @ linear
        mirrors = np.linalg.det(linear) < 0
        scale = self.scale
        if scale <= 0 or not np.allclose(gram / scale**2, np.eye(3), atol=1e-4):
            raise UserError(
                "world_from_file must be a rotation times one positive scale (a similarity that "
                "keeps handedness, or mirrors together with left-handed camera axes); check its "
                "axes for a stretched or missing one"
            )
        if mirrors and handed > 0:
            raise UserError(
                "world_from_file mirrors, but the camera axes are right-handed; state left-handed "
                'ones too (e.g. "unity") or a world_from_file that keeps handedness'
            )

    @property
    def scale(self) -> float:
        """World units per file unit; 0 when the matrix is singular."""
        return float(abs(np.linalg.det(self.world_from_file[:3, :3])) ** (1 / 3))

    def to_house(self, c2w: np.ndarray) -> np.ndarray:
        """File camera-to-world [..., 4, 4] → house c2w (OpenCV axes, unit rotation)."""
        rotation = self.world_from_file[:3, :3] / self.scale
        house = np.zeros_like(c2w, dtype=np.float64)
        house[..., :3, :3] = rotation @ c2w[..., :3, :3] @ camera_axes_matrix(self.camera_axes).T
        position = c2w[..., :3, 3] @ self.world_from_file[:3, :3].T
        house[..., :3, 3] = position + self.world_from_file[:3, 3]
        house[..., 3, 3] = 1.0
        return house

    def from_house(self, c2w: np.ndarray) -> np.ndarray:
        """Inverse of :meth:`to_house`."""
        rotation = self.world_from_file[:3, :3] / self.scale
        out = np.zeros_like(c2w, dtype=np.float64)
        out[..., :3, :3] = rotation.T @ c2w[..., :3, :3] @ camera_axes_matrix(self.camera_axes)
        out[..., :3, 3] = (c2w[..., :3, 3] - self.world_from_file[:3, 3]) @ rotation / self.scale
        out[..., 3, 3] = 1.0
        return out


def similarity(axes: np.ndarray, scale: float, offset=(0.0, 0.0, 0.0)) -> np.ndarray:
    """[4, 4] matrix of ``house = scale · axes @ file + offset``."""
    matrix = np.eye(4)
    matrix[:3, :3] = scale * axes
    matrix[:3, 3] = offset
    return matrix


# Blender's world (z up) with the subject looking along +x: x' = y, y' = z, z' = x.
Z_UP_FACING_X = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])

CONVENTIONS = {
    "house": Convention(np.eye(4), "opencv"),
    # The published data set: lengths divided by 23, then times 0.6.
    "rodinhd": Convention(similarity(Z_UP_FACING_X, 0.6 / 23), "blender"),
    "opengl": Convention(np.eye(4), "opengl"),
    "blender": Convention(similarity(Z_UP_FACING_X, 1.0), "blender"),
}


def named_convention(name: str) -> Convention:
    """Look a convention up by name; :class:`UserError` lists the known ones."""
    if name not in CONVENTIONS:
        raise UserError(f"unknown convention '{name}': choose one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]
