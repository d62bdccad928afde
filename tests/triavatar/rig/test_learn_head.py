"""The head model against the studio's own heads, and first guesses against known maps."""

import numpy as np
import pytest

from studio.assets import AssetFolder
from studio.people.bare_head import bare_head, person
from studio.people.random_subject import sample_subject
from triavatar.rig.first_guess import learn_guess
from triavatar.rig.head_model import MM_PER_UNIT
from triavatar.rig.learn_head import coefficients, learn_head


def test_a_linear_map_is_found_and_its_error_told():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((3, 40))
    pictures = rng.standard_normal((200, 40))
    noise = 0.1 * rng.standard_normal((200, 3))
    mean, matrix, deviation = learn_guess(pictures, pictures @ truth.T + 5 + noise, ridge=1e-4)
    assert np.abs(matrix - truth).max() < 0.1 and np.abs(mean).max() < 0.5
    # What people left out miss: the noise, and a little for what was learnt of few.
    assert np.all((deviation > 0.09) & (deviation < 0.14))


@pytest.mark.slow
@pytest.mark.assets
def test_heads_and_shapes_are_the_studio_s(assets):
    assets = AssetFolder(assets)
    subjects = [sample_subject(assets, 77, index) for index in range(40)]
    model = learn_head(assets, subjects, 39)
    topology = bare_head(assets)
    skin, boxes, _ = person(assets, topology, subjects[3].shape)
    again = model.skin(coefficients(model, skin[None])[0])
    assert np.abs(again - skin).max() * MM_PER_UNIT < 0.5
    # An opened mouth: the average ancestry's shape, against this person's own.
    opened, _, _ = person(assets, topology, subjects[3].shape, {"mouth-open": 0.6})
    rows, offset = model.shape("jawOpen")
    moved = np.zeros_like(skin)
    moved[rows[rows < len(skin)]] = 0.6 * offset[rows < len(skin)]
    true = opened - skin
    assert np.linalg.norm(moved - true) < 0.35 * np.linalg.norm(true)
    assert set(model.shapes) >= {"jawOpen", "tongueOut"}
