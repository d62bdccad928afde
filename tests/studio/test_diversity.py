"""Figures of a set's diversity, against brute force; no two subjects alike."""

import json

import numpy as np
import pytest

from runtime.errors import UserError
from studio.people.body import Shape
from studio.people.subject import Subject
from studio.sets.diversity import (
    StudioDiversityConfig,
    components_for,
    measure,
    pairwise_rms,
    report_diversity,
)


def test_pairwise_distance_is_the_root_mean_square_of_the_points_distances():
    faces = np.random.default_rng(0).standard_normal((6, 11, 3))
    distance = pairwise_rms(faces)
    for i in range(6):
        for j in range(6):
            d = np.linalg.norm(faces[i] - faces[j], axis=1)
            assert distance[i, j] == pytest.approx(np.sqrt((d**2).mean()), abs=1e-6)


def test_components_of_known_variance():
    rng = np.random.default_rng(1)
    basis, _ = np.linalg.qr(rng.standard_normal((30, 4)))
    weights, _ = np.linalg.qr(rng.standard_normal((50, 4)) - 0.0)
    weights = weights - weights.mean(0)
    faces = ((weights * [10, 10, 10, 0.1]) @ basis.T).reshape(50, 10, 3)
    assert components_for(faces) == 3
    assert components_for(faces, 0.3) == 1


def test_twins_are_counted():
    faces = np.random.default_rng(2).standard_normal((4, 20, 3)) * 5
    faces[3] = faces[1] + 0.01
    subjects = [Subject(0, i, Shape(), clothes="crew", hair="buzz") for i in range(4)]
    figures = measure(faces, subjects, 1.0)
    assert figures["twins (such a pair with the same hair, clothes, hat and skin)"] == 1
    assert figures["different sets of parameters"] == 1 and figures["clothes"] == 1
    subjects[3].clothes_colour = (0.66, 0.14, 0.15)
    figures = measure(faces, subjects, 1.0)
    assert figures["twins (such a pair with the same hair, clothes, hat and skin)"] == 0
    assert figures["pairs of faces closer than 1.0 mm"] == 1


def test_too_few_subjects_are_refused():
    with pytest.raises(UserError, match="n_subjects"):
        report_diversity(StudioDiversityConfig(n_subjects=1))


@pytest.mark.assets
@pytest.mark.slow
def test_no_two_of_a_thousand_subjects_are_alike(assets, tmp_path):
    output = tmp_path / "figures.json"
    report_diversity(StudioDiversityConfig(assets, n_subjects=1000, output=output))
    figures = json.loads(output.read_text())
    assert figures["different sets of parameters"] == 1000
    assert figures["twins (such a pair with the same hair, clothes, hat and skin)"] == 0
    assert figures["principal components for 95 % of variance"] >= 12


@pytest.mark.assets
def test_parameters_of_subjects_differ(assets):
    from studio.assets import AssetFolder
    from studio.people.random_subject import sample_subject

    folder = AssetFolder(assets)
    seen = {repr(sample_subject(folder, 1, i).attributes()) for i in range(100)}
    assert len(seen) == 100
