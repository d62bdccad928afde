"""The version of the code, written into everything the project saves."""

import subprocess
from functools import cache
from pathlib import Path

VERSION = "0.1.0"


@cache
def commit() -> str | None:
    """Return the commit of the checkout that this code runs from, None where it is none.

    Its first 12 digits, and "+" where files that git knows were changed since.
    """
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    command = ["git", "-C", str(here), "describe", "--always", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(
            [*command, "--dirty=+"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
