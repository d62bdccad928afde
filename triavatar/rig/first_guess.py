"""A first guess of a head from a few small pictures of an avatar.

Legend: V views, Q side of a pooled picture, D = V · Q² · 5 numbers that describe the pictures.

Colours say where eyes, brows and lips are, which depth alone does not. A linear map, learnt from
people whose heads are known, turns the pictures into coefficients of the head model.
"""

from __future__ import annotations

import numpy as np

from renderer.render import render_images
from runtime.errors import UserError
from triavatar.export.field import Field
from triavatar.rig.head_model import HeadModel
from triavatar.views import still_cameras

AZIMUTHS = (0.0, -40.0, 40.0)
DISTANCE = 3.9
SIZE, POOLED = 64, 16


def describe(field: Field) -> np.ndarray:
    """Numbers [D] float32 that describe an avatar: colours, depth and outline from three sides."""
    cameras = still_cameras(AZIMUTHS, SIZE, 0.0, DISTANCE)
    seen = render_images(field.planes, field.decoder, cameras, 0.0, field.settings, field.grid)
    opacity = seen.opacity[..., None]
    # Premultiplied colours around grey, and depth around the box's middle.
    color = seen.color - 0.5 * opacity
    depth = ((seen.depth[..., None] - DISTANCE) * opacity).where(
        opacity > 0.3, opacity.new_zeros(())
    )
    values = np.concatenate([each.cpu().numpy() for each in (color, depth, 0.5 * opacity)], axis=-1)
    block = SIZE // POOLED
    pooled = values.reshape(len(values), POOLED, block, POOLED, block, 5).mean(axis=(2, 4))
    return pooled.reshape(-1).astype(np.float32)


def learn_guess(
    pictures: np.ndarray, z: np.ndarray, ridge: float = 0.03
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ridge regression from pictures [N, D] to coefficients [N, K].

    Returns:
        Mean picture [D], map [K, D], and the coefficients' deviation from what the map says of
        people left out of it, one in five at a time, [K].
    """

    def solve(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = x.mean(axis=0)
        away = x - mean
        gram = away @ away.T
        scale = ridge * np.trace(gram) / len(gram)
        return mean, np.linalg.solve(gram + scale * np.eye(len(gram)), y - y.mean(axis=0)).T @ away

    missed = np.zeros_like(z)
    folds = min(5, len(z))
    for fold in range(folds):
        out = np.arange(len(z)) % folds == fold
        mean, matrix = solve(pictures[~out], z[~out])
        missed[out] = z[out] - z[~out].mean(axis=0) - (pictures[out] - mean) @ matrix.T
    mean, matrix = solve(pictures, z)
    return mean, matrix, np.sqrt((missed**2).mean(axis=0))


def first_guess(model: HeadModel, field: Field) -> np.ndarray:
    """Coefficients [K] of the head that an avatar seems to have."""
    seen = describe(field)
    if len(seen) != len(model.pixels_mean):
        raise UserError(
            f"the head model takes {len(model.pixels_mean)} numbers of an avatar's pictures where "
            f"there are {len(seen)}; make it again with train-rig."
        )
    return model.guess_mean + model.pixels_basis @ (seen - model.pixels_mean)
