"""Metrics against independent formulas and against networks whose answers are known."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch

from captures.cameras import orbit_cameras
from runtime.errors import UserError
from tests.triavatar.evaluation.stand_ins import (
    StandInInception,
    write_clip,
    write_onnx,
    write_torchscript,
)
from triavatar.evaluation.frechet import FeatureMoments, frechet_distance
from triavatar.evaluation.intervals import confidence_interval, mean_scores
from triavatar.evaluation.measures import Measures, error_map, facing, similarity
from triavatar.evaluation.networks import (
    clip_embedding,
    crop_square,
    face_identity,
    inception_features,
)


def moments(*parts: torch.Tensor) -> FeatureMoments:
    found = FeatureMoments()
    for part in parts:
        found.add(part)
    return found


def test_frechet_distance_is_the_textbook_formula():
    """Against numpy's moments and scipy's square root of a matrix."""
    random = np.random.default_rng(0)
    a = random.normal(size=(40, 7)) @ random.normal(size=(7, 7)) + 1
    b = random.normal(size=(60, 7)) @ random.normal(size=(7, 7))
    covariance = [np.cov(each, rowvar=False) for each in (a, b)]
    root = scipy.linalg.sqrtm(covariance[0] @ covariance[1])
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2)
    expected += np.trace(covariance[0] + covariance[1] - 2 * root.real)
    parts = torch.from_numpy(a).split(13)
    found = frechet_distance(moments(*parts), moments(torch.from_numpy(b)))
    assert found == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_known_gaussians():
    """Scaled and shifted features: |shift|² + Σ (s − 1)² λ with λ the variances (they commute)."""
    features = torch.randn(500, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    scale, shift = 1.7, 0.3
    variance = float(features.var(dim=0).sum())
    expected = 5 * shift**2 + (scale - 1) ** 2 * variance
    # The scaling keeps the mean of centred features.
    centred = features - features.mean(dim=0)
    found = frechet_distance(moments(centred), moments(scale * centred + shift))
    assert found == pytest.approx(expected, rel=1e-9)
    # Fewer pictures than channels: singular covariances, still real and zero with itself.
    few = moments(torch.randn(3, 9))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-6)


def test_interval_of_many_people_is_the_normal_one():
    values = np.random.default_rng(3).normal(20, 2, size=200)
    low, high = confidence_interval(values.tolist())
    half = scipy.stats.t.ppf(0.975, 199) * values.std(ddof=1) / math.sqrt(200)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert confidence_interval([1.0, 2.0]) is None
    assert mean_scores({"a": {"x": 1, "y": 3}, "b": {"x": 2}}, ["a", "b"]) == {"x": 1.5, "y": 3}


def test_networks_of_both_formats(tmp_path):
    pictures = torch.rand(20, 24, 24, 3, generator=torch.Generator().manual_seed(0))
    file = write_torchscript(tmp_path / "inception.pt", StandInInception())
    features = inception_features(file)(pictures)
    quarters = (pictures * 255).round().unfold(1, 12, 12).unfold(2, 12, 12).mean((-1, -2)) / 255
    assert torch.allclose(features, quarters.permute(0, 3, 1, 2).flatten(1), atol=1e-5)

    mixing = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
    identity = face_identity(write_onnx(tmp_path / "face.onnx", mixing), (0.5, 0.5, 0.5))
    flat = torch.tensor([[0.2, 0.4, 0.9], [0.7, 0.1, 0.3]])
    expected = torch.nn.functional.normalize((flat * 2 - 1) @ mixing, dim=1)
    found = identity(flat[:, None, None].expand(-1, 24, 24, -1))
    assert torch.allclose(found, expected, atol=1e-4)


def test_clip_of_a_folder(tmp_path):
    embed = clip_embedding(str(write_clip(tmp_path / "clip")), torch.device("cpu"))
    pictures = torch.rand(3, 40, 40, 3, generator=torch.Generator().manual_seed(0))
    measure = similarity(embed)
    assert torch.allclose(measure(pictures, pictures), torch.ones(3), atol=1e-5)
    assert embed(pictures).shape == (3, 8)
    assert (measure(pictures, pictures.flip(0))[:1] < 1 - 1e-6).all()


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"inception-2015-12-05\.pt"):
        inception_features(tmp_path / "none.pt")
    with pytest.raises(UserError, match="w600k_r50"):
        face_identity(tmp_path / "none.onnx", (0.5, 0.5, 1.0))
    with pytest.raises(UserError, match=r"model\.safetensors"):
        clip_embedding(str(tmp_path / "none"), torch.device("cpu"))
    for name in ("broken.pt", "broken.onnx"):
        (tmp_path / name).write_bytes(b"no network")
        with pytest.raises(UserError, match="can't be read"):
            inception_features(tmp_path / name)


def test_faces_are_cut_where_they_are():
    picture = torch.zeros(1, 3, 40, 40)
    picture[:, :, 10:20, 20:30] = 1  # its middle at 0.625, 0.375
    inside = crop_square(picture, (0.625, 0.375, 0.25), 8)
    assert torch.allclose(inside[..., 1:-1, 1:-1], torch.ones(1, 3, 6, 6))  # edges are blurred
    beside = crop_square(picture, (0.125, 0.125, 0.5), 8)  # a quarter of it lies outside: white
    assert float(beside[0, 0, 0, 0]) == 1 and float(beside[0, 0, 7, 7]) == 0


def test_identity_is_measured_where_a_face_shows(tmp_path):
    cameras = orbit_cameras(8, size=16)
    assert facing(cameras, 50).sum() == 3  # straight ahead and 45° to both sides
    seen = []

    def identity(a, b):
        seen.append(len(a))
        return torch.ones(len(a))

    measures = Measures(identity=identity, face_angle=50)
    file = write_torchscript(tmp_path / "inception.pt", StandInInception())
    measures.inception = inception_features(file)
    random = torch.Generator().manual_seed(0)
    people = [torch.rand(8, 16, 16, 3, generator=random) for _ in range(4)]
    for true in people:
        scores = measures.of_subject(true * 0.5, true, cameras)
        assert scores["csim"] == 1
    assert seen == [3] * 4
    found = measures.frechet()
    quantised = torch.cat(people)
    halves = (quantised * 0.5 * 255).round() / 255, (quantised * 255).round() / 255
    grids = [each.unfold(1, 8, 8).unfold(2, 8, 8).mean((-1, -2)).flatten(1) for each in halves]
    expected = frechet_distance(moments(grids[0]), moments(grids[1]))
    assert found["fid"] == pytest.approx(expected, rel=1e-4)
    assert found["pictures"] == 32 and 0 < found["floor"] < found["fid"]


def test_error_maps_go_from_black_to_white():
    true = torch.zeros(1, 4, 3)
    ours = torch.tensor([0.0, 0.05, 0.15, 0.5])[None, :, None].expand(1, 4, 3)
    shown = error_map(ours, true)[0]
    assert shown[0].tolist() == [0, 0, 0] and shown[3].tolist() == [255, 255, 255]
    assert shown[1, 0] > 0 and shown[1, 1] == 0  # red first
    assert shown[2, 0] == 255 and shown[2, 1] > 0 and shown[2, 2] == 0  # then yellow
