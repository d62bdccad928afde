"""The painted ball as fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest

from renderer.fitted_set import FittedSet
from tests.triavatar.export.ball import SETTINGS, ball_decoder, ball_planes
from triavatar.export.maker import Maker


@pytest.fixture(scope="session")
def maker() -> Maker:
    """The ball's pieces, each made once for all tests."""
    return Maker(ball_planes(), ball_decoder(), SETTINGS)


@pytest.fixture(scope="session")
def ball_folder(tmp_path_factory) -> Path:
    """A triplane folder that holds the ball."""
    folder = tmp_path_factory.mktemp("export") / "set"
    planes = ball_planes()
    fitted = FittedSet.create(folder, ball_decoder(), tuple(planes.shape))
    fitted.put("ball", planes)
    return folder
