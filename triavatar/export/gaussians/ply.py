"""Gaussians as the PLY files that 3D Gaussian splatting viewers read."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np

from runtime.files import atomic_path
from triavatar.export.gaussians.splats import Splats
from triavatar.export.libraries import needed
from triavatar.export.mesh import Placement

# Trained scenes have y down and z away from the first camera, and viewers turn them upright.
FLIP = np.diag([1.0, -1.0, -1.0])


def write_ply(path: Path, splats: Splats, placement: Placement, compressed: bool = False) -> None:
    """Write the layout of 3D Gaussian splatting, with colours that are the same from all sides.

    Args:
        path: file with suffix ``.ply``.
        placement: to metres; the axes are then turned to x right, y down, z away from the viewer.
        compressed: write ``<stem>.compressed.ply`` too, about a quarter as large.

    Raises:
        UserError: gsply is missing.
    """
    library = needed("gsply")
    from scipy.spatial.transform import Rotation

    # The library's quaternions begin with the real part, SciPy's end with it.
    quaternions = np.roll(Rotation.from_matrix(FLIP @ splats.rotations).as_quat(), 1, axis=1)
    opacity = np.clip(splats.opacity, 1e-4, 1 - 1e-4)
    data = library.GSData(
        means=(placement.points(splats.positions) @ FLIP.T).astype(np.float32),
        scales=np.log(splats.scales * placement.scale).astype(np.float32),
        quats=quaternions.astype(np.float32),
        opacities=np.log(opacity / (1 - opacity)).astype(np.float32),
        sh0=library.rgb2sh(np.clip(splats.color, 0, 1)).astype(np.float32),
        shN=np.zeros((len(splats), 0, 3), np.float32),
    )
    files = {path: False}
    if compressed:
        files[path.with_suffix(".compressed.ply")] = True
    for file, small in files.items():
        with atomic_path(file) as temporary:
            library.plywrite(temporary, data, compressed=small)
            _check_whole(temporary, len(splats))


def _check_whole(path: Path, count: int) -> None:
    """Raise OSError where a file lacks its end.

    NumPy, which the library writes with, says nothing when the last block finds no room.
    """
    try:
        whole = len(needed("gsply").plyread(path)) == count
    except Exception:  # whatever a reader says of half a file
        whole = False
    if not whole:
        raise OSError(errno.ENOSPC, "the file was cut short", str(path))
