"""Configurations and the model that come with the project, in a clone or an installed wheel."""

from importlib.resources import files
from pathlib import Path

from runtime.formats.settings_files import parts_file

PROJECT = Path(__file__).resolve().parent.parent
# In a clone these lie where people look for them; a wheel has them inside the package.
PLACES = {"configs": "configs", "bundle": "data/bundle"}


def shipped(name: str) -> Path | None:
    """Return the folder ``configs`` or ``bundle`` of this installation, or None without it."""
    inside = Path(str(files("triavatar"))) / name
    for folder in (inside, PROJECT / PLACES[name]):
        if folder.is_dir():
            return folder
    return None


def scales() -> list[str]:
    """Names of the scales that configurations come in."""
    folder = shipped("configs")
    return sorted(p.stem for p in folder.glob("*.yaml")) if folder else []


def find_configuration(path: Path) -> Path:
    """Return a YAML file, or a part of one: as it is named, or else the shipped one.

    ``debug/base.yaml`` is the part ``base`` of the scale ``debug``.
    """
    folder = shipped("configs")
    if path.is_absolute() or folder is None or path.is_file() or parts_file(path):
        return path
    parts = path.parts[1:] if path.parts[:1] == ("configs",) else path.parts
    found = folder.joinpath(*parts)
    return found if found.is_file() or parts_file(found) else path
