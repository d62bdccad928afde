"""The packages that exports need beyond the project's own, loaded when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from types import ModuleType

from runtime.errors import UserError

PACKAGES = {
    "skimage.measure": "scikit-image",
    "fast_simplification": "fast-simplification",
    "xatlas": "xatlas",
    "pygltflib": "pygltflib",
    "gsply": "gsply",
}

MESH = ("skimage.measure", "fast_simplification", "xatlas")
OF_FORMAT = {
    "glb": (*MESH, "pygltflib"),
    "rigged.glb": (*MESH, "pygltflib"),
    "obj": MESH,
    "html": MESH,
    # Files stand on the mesh's ground.
    "ply": ("skimage.measure", "fast_simplification", "gsply"),
}


def check_packages(formats: Iterable[str]) -> None:
    """Refuse formats whose packages are missing, before anything is made.

    Raises:
        UserError: names the first that is missing.
    """
    for module in dict.fromkeys(module for kind in formats for module in OF_FORMAT[kind]):
        needed(module)


def needed(module: str) -> ModuleType:
    """Import one of :data:`PACKAGES`.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"exports need the package {PACKAGES[module]} ({error}); install what all of them need "
            "with pip install 'triavatar[export]'"
        ) from None
