"""Rendering a set: what lies on disk, resuming, determinism, refusals."""

from pathlib import Path

import numpy as np
import pytest

from captures.multiview import MultiViewSet
from runtime.errors import UserError
from studio.hair.combed import DRAPE_STYLES
from studio.sets.records import held_out
from studio.sets.render_config import StudioRenderConfig
from studio.sets.render_set import render_set

EXAMPLE = Path(__file__).resolve().parents[2] / "data" / "example"


def _bytes(root):
    return {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    "change",
    [
        {"n_views": 0},
        {"size": 0},
        {"test_subjects": 64},
        {"validation_subjects": 63, "test_subjects": 1},
        {"test_subjects": -1},
        {"low_elevation": 70.0},
        {"supersampling": 9},
    ],
)
def test_impossible_settings_are_refused_before_anything_is_read(tmp_path, change):
    config = StudioRenderConfig(output_dir=tmp_path / "out", **change)
    with pytest.raises(UserError, match=next(iter(change))):
        render_set(config)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "n, expected", [(1, (0, 0)), (2, (1, 0)), (10, (1, 0)), (40, (2, 1)), (2000, (64, 32))]
)
def test_any_number_of_people_can_be_divided(n, expected):
    assert held_out(StudioRenderConfig(n_subjects=n)) == expected


def test_example_set_is_whole_and_framed():
    views = MultiViewSet(EXAMPLE)
    assert len(views.names) >= 10 and len(views.split("test")) == 2
    assert not set(views.split("train")) & set(views.split("test"))
    assert sum(p.stat().st_size for p in EXAMPLE.rglob("*") if p.is_file()) < 5_000_000
    for name in views.names:
        loaded = views.load(name)
        alpha = np.asarray(loaded.images)[..., 3]
        assert len(loaded.images) >= 24 and loaded.images.shape[1:] == (128, 128, 4)
        cover = (alpha > 0).mean((1, 2))
        assert cover.min() > 0.15 and cover.max() < 0.75
        partial = ((alpha > 0) & (alpha < 255)).sum((1, 2))
        assert partial.min() > 20  # antialiased edges
        held = views.split_views("test", name)
        assert len(held) == 4 and 0 not in held
        assert views.attributes(name)


@pytest.mark.assets
def test_same_seed_same_bytes_whatever_shard_threads_or_interruption(assets, tmp_path):
    pytest.importorskip("numba", reason="the rasteriser needs numba")
    common = {"assets": assets, "n_subjects": 2, "n_views": 3, "size": 32, "test_subjects": 1}
    one = StudioRenderConfig(output_dir=tmp_path / "one", threads=1, **common)
    render_set(one)
    other = tmp_path / "other"
    for shard in ("1/2", "0/2"):
        render_set(StudioRenderConfig(output_dir=other, shard=shard, **common))
    assert _bytes(tmp_path / "one") == _bytes(other)
    # Killed half-way: a picture and the mark of completion are missing.
    (other / "subject_000001" / "subject.json").unlink()
    (other / "subject_000001" / "img_proc_fg_000002.png").unlink()
    untouched = other / "subject_000000" / "img_proc_fg_000001.png"
    before = untouched.stat().st_mtime_ns
    render_set(StudioRenderConfig(output_dir=other, **common))
    assert _bytes(tmp_path / "one") == _bytes(other)
    assert untouched.stat().st_mtime_ns == before
    with pytest.raises(UserError, match="begun with size = 32, now it is 48"):
        render_set(StudioRenderConfig(output_dir=other, **{**common, "size": 48}))


@pytest.mark.slow
@pytest.mark.assets
def test_same_bytes_from_processes(assets, tmp_path):
    common = {"assets": assets, "n_subjects": 3, "n_views": 2, "size": 16, "test_subjects": 1}
    for folder, changes in (("here", {}), ("two", {"subjects_at_once": 2})):
        render_set(StudioRenderConfig(output_dir=tmp_path / folder, **common, **changes))
    assert _bytes(tmp_path / "here") == _bytes(tmp_path / "two")


@pytest.mark.assets
def test_a_set_can_be_used_while_it_grows_and_keeps_its_test_identities(assets, tmp_path):
    pytest.importorskip("numba", reason="the rasteriser needs numba")
    common = {"assets": assets, "n_views": 2, "size": 16, "supersampling": 1}
    common |= {"output_dir": tmp_path, "test_subjects": 1, "validation_subjects": 1}
    render_set(StudioRenderConfig(n_subjects=4, shard="0/2", **common))
    partial = MultiViewSet(tmp_path)
    assert partial.split("test") == ["subject_000000"]
    assert partial.split("train") == ["subject_000002"] and not partial.split("validation")
    render_set(StudioRenderConfig(n_subjects=3, **common))
    grown = MultiViewSet(tmp_path)
    assert grown.split("test") == ["subject_000000"]
    assert grown.split("validation") == ["subject_000001"]
    assert grown.split("train") == ["subject_000002"]
    assert grown.attributes("subject_000001")["labels"]


@pytest.mark.assets
def test_the_population_is_varied(assets):
    from studio.assets import AssetFolder
    from studio.people.random_subject import sample_subject

    folder = AssetFolder(assets)
    people = [sample_subject(folder, 8, i) for i in range(300)]
    styles = [p.hair for p in people if not p.is_man]
    short = {"buzz", "crop", "short01", "short02", "short03", "short04"}
    assert sum(style in short for style in styles) < 0.2 * len(styles)
    assert sum(style in DRAPE_STYLES for style in styles) > 0.2 * len(styles)
    assert len({p.hair for p in people}) > 15
    ages = np.array([p.shape.age for p in people])
    assert (ages < 13).mean() > 0.05 and (ages > 60).mean() > 0.1
    tones = np.array([p.tone for p in people])
    assert min(np.histogram(tones, [0, 0.25, 0.5, 0.75, 1.01])[0]) > 15
    assert any(p.receding > 0.2 for p in people)


@pytest.mark.assets
def test_subjects_differ_and_repeat(assets):
    from studio.assets import AssetFolder
    from studio.people.random_subject import sample_subject

    folder = AssetFolder(assets)
    subjects = [sample_subject(folder, 5, i).attributes() for i in range(12)]
    faces = [tuple(sorted(s["shape"]["face"].items())) for s in subjects]
    assert len(set(faces)) == 12
    assert len({s["hair"] for s in subjects}) >= 4
    assert len({s["clothes"] for s in subjects}) >= 3
    assert subjects[7] == sample_subject(folder, 5, 7).attributes()


@pytest.mark.assets
def test_a_subject_is_whole(assets):
    from studio.assets import AssetFolder
    from studio.people.figure import build_parts
    from studio.people.random_subject import sample_subject

    pytest.importorskip("numba", reason="the rasteriser needs numba")
    folder = AssetFolder(assets)
    (parts,) = build_parts(folder, sample_subject(folder, 3, 0), texture_size=256)
    labels = {part.label for part in parts}
    assert {"skin", "hair", "eyes", "clothes", "mouth"} <= labels
    for part in parts:
        assert np.abs(part.positions).max() < 1.0  # inside the box
        assert np.isfinite(part.light).all() and part.light.min() >= 0
    skin = next(part for part in parts if part.label == "skin")
    assert 0.6 < skin.positions[:, 1].max() < 0.75
