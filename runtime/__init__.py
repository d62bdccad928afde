"""Ground floor: configuration, files, seeds, devices, run folders and launching.

Imports nothing from the other packages of the project.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from runtime.errors import UserError
from runtime.version import VERSION

__all__ = ["VERSION", "UserError", "lazy_names"]


def lazy_names(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__`` (PEP 562): importing it stays cheap.

    Args:
        package: its ``__name__``.
        modules: exported name → module that defines it.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names
