"""The ways to a stranger's avatar that ``triavatar study likeness`` compares."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from likeness.settings import LikenessSettings
from runtime.config import nearest
from runtime.errors import UserError

METHODS = {
    "mean": "mean person",
    "nearest": "nearest training person",
    "linear": "linear model alone",
    "regression": "first guess alone (`off`)",
    "guide": "first guess, then coefficients (`guide`)",
    "full": "all (`full`)",
    "full_without_sides": "all, but sides not held",
    "full_without_carrying": "all, but nothing carried to the sides",
    "full_without_symmetry": "all, but nothing mirrored",
    "full_without_camera": "all, but camera as given",
    "full_without_light": "all, but no light estimated",
    "full_without_networks": "all, but regression guesses without the networks",
    "full_without_regression": "all, but from the mean person",
    "full_without_placement": "all, but placed as it is",
    "full_64": "all, planes of 64²",
    "fitted": "fitted to all views (bound)",
}
"""Name → what the table calls it."""
FLOORS = ("mean", "nearest", "linear", "regression")
PARTS = ("full", *(name for name in METHODS if name.startswith("full_without_")))


def every_method(asked: Sequence[str]) -> list[str]:
    """Return the methods asked for, once each; "floors" and "parts" stand for several.

    Raises:
        UserError: there is no such method.
    """
    groups = {"floors": FLOORS, "parts": PARTS}
    methods = [method for name in asked for method in groups.get(name, (name,))]
    for method in methods:
        if method not in METHODS:
            raise UserError(f'unknown method "{method}"{nearest(method, [*METHODS, *groups])}')
    return list(dict.fromkeys(methods))


def settings_of(method: str, full: LikenessSettings) -> LikenessSettings:
    """Return the settings of a method, as changes to those of "full"."""
    settings = copy.deepcopy(full)
    if method == "linear":
        # What a linear model of triplanes gives without anything else: coefficients from zero.
        settings.level, settings.regression, settings.place = "guide", False, False
        settings.camera.iterations, settings.light.direction = 0, 0.0
    elif method in ("regression", "guide"):
        settings.level = "off" if method == "regression" else "guide"
    elif method == "full_without_sides":
        settings.planes.side_weight = 0.0
    elif method == "full_without_carrying":
        settings.sides.carry = False
    elif method == "full_without_symmetry":
        settings.sides.symmetry = 0.0
    elif method == "full_without_camera":
        settings.camera.iterations = 0
    elif method == "full_without_light":
        settings.light.direction = 0.0
    elif method == "full_without_regression":
        settings.regression = False
    elif method == "full_without_networks":
        settings.networks = False
    elif method == "full_without_placement":
        settings.place = False
    elif method == "full_64":
        settings.planes.size = 64
    return settings
