"""The packages that exports need beyond the project's own, loaded when asked for."""

from __future__ import annotations

import importlib
from types import ModuleType

from runtime.errors import UserError

PACKAGES = {
    "skimage.measure": "scikit-image",
    "fast_simplification": "fast-simplification",
    "xatlas": "xatlas",
    "pygltflib": "pygltflib",
    "gsply": "gsply",
}


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
