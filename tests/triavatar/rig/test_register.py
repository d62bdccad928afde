"""What registration takes from the pictures of a face."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from triavatar.rig.register import eyes_below

CENTRES = np.array([[-0.15, 0.1, 0.3], [0.15, 0.1, 0.3]])


class Painted:
    """A flat face with dark spots: (x, y, radius), world units."""

    planes = torch.zeros(1)

    def __init__(self, spots):
        self.spots = spots

    def look(self, origins, directions, near):
        assert near == 0 and (directions[:, 2] == -1).all()
        color = torch.full((len(origins), 3), 0.7)
        for x, y, radius in self.spots:
            away = (origins[:, :2] - torch.tensor([x, y])).norm(dim=1)
            color[away < radius] = 0.2
        return SimpleNamespace(color=color, opacity=torch.ones(len(origins)))


def eyes(drop: float):
    return [(-0.15, 0.1 + drop, 0.04), (0.15, 0.1 + drop, 0.04)]


def test_eyes_that_are_lower_are_found():
    assert eyes_below(CENTRES, Painted(eyes(-0.035))) == pytest.approx(-0.035, abs=0.004)
    assert eyes_below(CENTRES, Painted(eyes(0.0))) == pytest.approx(0, abs=0.004)


def test_brows_fringes_and_faces_without_eyes_move_nothing():
    brows = [(x, 0.2, 0.05) for x in (-0.15, 0.15)]
    assert eyes_below(CENTRES, Painted(eyes(0.0) + brows)) == pytest.approx(0, abs=0.01)
    assert eyes_below(CENTRES, Painted(brows)) == 0
    assert eyes_below(CENTRES, Painted([])) == 0
    # Hair over one of the eyes: the other side is bright there.
    fringe = [(0.22, 0.18, 0.07)]
    found = eyes_below(CENTRES, Painted(eyes(-0.035) + fringe))
    assert found == pytest.approx(-0.035, abs=0.006)
