"""Nobody who is held out is trained on, wherever the split is stated."""

import json
from pathlib import Path

import pytest
from torch.utils.data import Dataset

from captures.multiview import MultiViewSet
from diffusion.conditioning.feature_set import FeatureSet
from diffusion.training.loop import TrainingLoop
from diffusion.data.subjects import (
    SubjectsConfig,
    chosen_subjects,
    paired_subjects,
)
from diffusion.training.train_base import TrainBaseConfig, train_base
from diffusion.training.train_vae import TrainVaeConfig, train_vae
from renderer.fitted_set import FittedSet
from renderer.triplane_sets import DownsampleConfig, downsample
from runtime.errors import UserError
from runtime.files import read_json
from tests.diffusion.tiny import tiny_base

SPLITS = {"train": ["s0", "s1", "s2"], "validation": ["s3"], "test": ["held"]}
TRAIN = ["s0", "s1", "s2", "s3"]


@pytest.fixture
def stated(tmp_path: Path, tiny_fitted: FittedSet) -> FittedSet:
    """The fitted set, with its split in the manifest."""
    made = FittedSet.create(
        tmp_path / "stated", tiny_fitted.decoder(), tiny_fitted.shape, identities=SPLITS
    )
    for name in tiny_fitted.names:
        made.put(name, tiny_fitted.load(name))
    return FittedSet.open(made.folder)


def test_the_split_of_the_multi_view_set_counts(tiny_views, tiny_fitted, tiny_features):
    found = paired_subjects(SubjectsConfig(), tiny_views, tiny_fitted, tiny_features)
    assert "held" in tiny_fitted.names
    assert found.train == TRAIN and found.validation == []
    sliced = SubjectsConfig(start_idx=1, end_idx=3)
    assert paired_subjects(sliced, tiny_views, tiny_fitted, tiny_features).train == ["s1", "s2"]


def test_without_it_the_split_of_the_triplanes_counts(stated, tiny_features):
    found = paired_subjects(SubjectsConfig(), None, stated, tiny_features)
    assert found.train == ["s0", "s1", "s2"] and found.validation == ["s3"]


def test_without_that_the_split_of_the_features_counts(tmp_path, tiny_fitted, tiny_features):
    manifest = tiny_features.manifest | {"identities": SPLITS}
    features = FeatureSet.create(tmp_path / "features", manifest)
    for name in tiny_features.names:
        features.put(name, tiny_features.load(name))
    found = paired_subjects(SubjectsConfig(), None, tiny_fitted, FeatureSet.open(features.folder))
    assert found.train == ["s0", "s1", "s2"] and found.validation == ["s3"]


def test_where_nothing_states_it_everybody_needs_a_word(tiny_fitted, tiny_features):
    with pytest.raises(UserError, match="which identities are held out.*--identities all"):
        paired_subjects(SubjectsConfig(), None, tiny_fitted, tiny_features)
    everybody = SubjectsConfig(identities="all")
    found = paired_subjects(everybody, None, tiny_fitted, tiny_features)
    assert found.train == sorted([*TRAIN, "held"]) and found.validation == []


def test_lists_may_not_name_the_held_out(tmp_path, tiny_views):
    listed = tmp_path / "names.txt"
    config = SubjectsConfig(txt_file=listed)

    def choose():
        return chosen_subjects(
            config, tiny_views.names, tiny_views.root, tiny_views.identity_splits
        )

    listed.write_text("s2\nheld\n")
    with pytest.raises(UserError, match="held-out identities: held"):
        choose()
    listed.write_text("s2\nnobody\n")
    with pytest.raises(UserError, match="nobody"):
        choose()
    listed.write_text("s2\ns0\n")
    assert choose().train == ["s2", "s0"]


@pytest.fixture
def seen(monkeypatch) -> set[str]:
    """Names that a training asks its data for; nothing is trained."""
    names: set[str] = set()

    def look(self, dataset: Dataset, *others, **named):
        for position in range(64):
            item = dataset[position]
            names.update(getattr(item, "names", []))

    monkeypatch.setattr(TrainingLoop, "train", look)
    return names


def test_train_base_without_root_sees_no_held_out_identity(
    stated: FittedSet, tiny_features: FeatureSet, tmp_path: Path, seen: set[str]
):
    model = tiny_base()
    settings = {"features": tiny_features.folder, "plane_size": 8, "model": model, "device": "cpu"}
    train_base(
        TrainBaseConfig(output_dir=tmp_path / "a", triplanes=stated.folder, steps=1, **settings)
    )
    assert seen == {"s0", "s1", "s2"}
    train_base(
        TrainBaseConfig(
            output_dir=tmp_path / "b",
            triplanes=stated.folder,
            steps=1,
            identities="all",
            **settings,
        )
    )
    assert "held" in seen


def test_train_vae_sees_no_held_out_identity(tiny_views: MultiViewSet, tmp_path: Path):
    config = TrainVaeConfig(
        output_dir=tmp_path / "vae",
        root=tiny_views.root,
        image_size=32,
        block_out_channels=(8, 8, 16),
        norm_num_groups=4,
        steps=1,
        batch_size=1,
        sample_every=0,
        device="cpu",
    )
    train_vae(config)
    log = (tmp_path / "vae" / "log.txt").read_text()
    assert "4 subjects, 20 pictures" in log


def test_the_split_travels_with_the_triplanes(stated: FittedSet, tmp_path: Path):
    downsample(DownsampleConfig(stated.folder, tmp_path / "small", size=8))
    assert FittedSet.open(tmp_path / "small").identities == SPLITS
    # A set that grew states its new split when it is written to again.
    grown = SPLITS | {"train": [*SPLITS["train"], "s9"]}
    FittedSet.create(stated.folder, stated.decoder(), stated.shape, identities=grown)
    assert FittedSet.open(stated.folder).identities == grown
    assert json.dumps(read_json(stated.folder / "manifest.json"))
