"""Top floor: the command line, portrait → avatar, rendering, evaluation and report."""

from runtime.version import VERSION as __version__

__all__ = ["__version__"]
