"""Ground floor: configuration, files, seeds, devices, run folders and launching.

Imports nothing from the other packages of the project.
"""

from runtime.errors import UserError
from runtime.version import VERSION

__all__ = ["VERSION", "UserError"]
