"""Bounds of likeness's settings."""

import pytest

from likeness.settings import LikenessSettings, SideSettings
from runtime.config import check_settings
from runtime.errors import UserError


@pytest.mark.parametrize(
    "group, name, value",
    [
        ("", "rounds", 10**9),
        ("", "rounds", 0),
        ("camera", "iterations", 10**9),
        ("coefficients", "newton_steps", 10**9),
        ("coefficients", "steps", 10**9),
        ("planes", "steps", -1),
        ("planes", "size", 10**6),
        ("light", "noise", 0.0),
    ],
)
def test_values_out_of_bounds(group, name, value):
    settings = LikenessSettings()
    setattr(getattr(settings, group) if group else settings, name, value)
    with pytest.raises(UserError, match=f"{name} is {value} but must be"):
        check_settings(settings)


def test_side_views_are_pairs():
    check_settings(LikenessSettings())
    with pytest.raises(UserError, match="2 azimuths but 11 elevations"):
        check_settings(LikenessSettings(sides=SideSettings(azimuths=(0.0, 90.0))))
