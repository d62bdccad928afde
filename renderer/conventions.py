"""Camera and world conventions of data sets, converted once, where they enter.

A convention is a similarity transform from the file's world to ours and the axes of the file's
cameras. The house convention is described in :mod:`renderer.cameras`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runtime.errors import UserError

# Columns are the file camera's axes in OpenCV camera axes (x right, y down, z forward).
CAMERA_AXES = {
    "opencv": np.diag([1.0, 1.0, 1.0]),
    "blender": np.diag([1.0, -1.0, -1.0]),  # x right, y up, looks down -z; OpenGL is the same
    "opengl": np.diag([1.0, -1.0, -1.0]),
}


@dataclass(frozen=True)
class Convention:
    """How a data set's cameras relate to ours.

    Attributes:
        world_from_file: similarity [4, 4] from the file's world to the house world (rotation
            times one scale, plus translation).
        camera_axes: "opencv", "blender" or "opengl".
    """

    world_from_file: np.ndarray
    camera_axes: str = "opencv"

    def __post_init__(self) -> None:
        matrix = np.asarray(self.world_from_file, dtype=np.float64)
        object.__setattr__(self, "world_from_file", matrix)
        if self.camera_axes not in CAMERA_AXES:
            raise UserError(
                f"unknown camera axes '{self.camera_axes}': choose one of {', '.join(CAMERA_AXES)}"
            )
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise UserError("world_from_file must be a finite 4×4 matrix")
        linear = matrix[:3, :3]
        gram = linear.T @ linear
        if self.scale <= 0 or not np.allclose(gram / self.scale**2, np.eye(3), atol=1e-4):
            raise UserError(
                "world_from_file must be a rotation times one positive scale (a similarity that "
                "keeps handedness); check its axes for a mirrored or stretched one"
            )

    @property
    def scale(self) -> float:
        """World units per file unit; 0 when the matrix mirrors or is singular."""
        return float(max(np.linalg.det(self.world_from_file[:3, :3]), 0.0) ** (1 / 3))

    def to_house(self, c2w: np.ndarray) -> np.ndarray:
        """File camera-to-world [..., 4, 4] → house c2w (OpenCV axes, unit rotation)."""
        rotation = self.world_from_file[:3, :3] / self.scale
        house = np.zeros_like(c2w, dtype=np.float64)
        house[..., :3, :3] = rotation @ c2w[..., :3, :3] @ CAMERA_AXES[self.camera_axes]
        position = c2w[..., :3, 3] @ self.world_from_file[:3, :3].T
        house[..., :3, 3] = position + self.world_from_file[:3, 3]
        house[..., 3, 3] = 1.0
        return house

    def from_house(self, c2w: np.ndarray) -> np.ndarray:
        """Inverse of :meth:`to_house`."""
        rotation = self.world_from_file[:3, :3] / self.scale
        out = np.zeros_like(c2w, dtype=np.float64)
        out[..., :3, :3] = rotation.T @ c2w[..., :3, :3] @ CAMERA_AXES[self.camera_axes].T
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
