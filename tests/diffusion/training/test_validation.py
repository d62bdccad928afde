"""Validation on held-out people: measures, the best snapshot, stopping early."""

import json
from pathlib import Path

import pytest
import torch

from diffusion.training.train_base import TrainBaseConfig, train_base
from diffusion.training.validation import (
    PlaneComparison,
    ValidationConfig,
    out_of_patience,
    quartile_means,
)
from renderer.fitted_set import FittedSet
from runtime.errors import UserError
from tests.diffusion.tiny import tiny_base


def people(count: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 4, 16, 16, generator=random) * 0.2


def test_losses_are_told_by_quarter_of_the_timesteps():
    values = torch.tensor([1.0, 3.0, 5.0, 9.0, 7.0])
    timesteps = torch.tensor([0, 24, 25, 99, 75])
    found = quartile_means(values, timesteps, 100)
    assert found == {
        "validation_loss": 5.0,
        "validation_loss_q1": 2.0,
        "validation_loss_q2": 5.0,
        "validation_loss_q4": 8.0,
    }


def test_perfect_washed_out_and_copied_samples_are_told_apart():
    training, truth = people(50), people(8, seed=1)
    compare = PlaneComparison(list(training))
    perfect = compare(truth, truth)
    assert perfect["plane_error"] == 0 and perfect["spread"] == pytest.approx(1)
    assert perfect["copy_ratio"] == pytest.approx(1, abs=1e-3)
    mean = compare(training.mean(dim=0).expand(8, -1, -1, -1, -1), truth)
    assert mean["plane_error"] == pytest.approx(1) and mean["spread"] == pytest.approx(0, abs=1e-5)
    copies = compare(training[:8], truth)
    assert copies["copy_ratio"] < 0.05 and copies["plane_error"] > 1.2


def test_patience_is_counted_in_validations():
    config = ValidationConfig(every=10, patience=3)
    assert not out_of_patience(config, None, 500)
    assert not out_of_patience(config, {"step": 40}, 69)
    assert out_of_patience(config, {"step": 40}, 70)
    assert not out_of_patience(ValidationConfig(every=10), {"step": 40}, 999)


@pytest.fixture
def settings(tmp_path: Path, tiny_fitted: FittedSet, tiny_features, tiny_views) -> dict:
    splits = {"train": ["s0", "s1", "s2"], "validation": ["s3", "held"], "test": []}
    made = FittedSet.create(
        tmp_path / "fitted", tiny_fitted.decoder(), tiny_fitted.shape, identities=splits
    )
    for name in tiny_fitted.names:
        made.put(name, tiny_fitted.load(name))
    return {
        "triplanes": made.folder,
        "features": tiny_features.folder,
        "plane_size": 8,
        "num_timesteps": 20,
        "steps": 6,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "ema_decay": 0.5,
        "log_every": 1,
        "save_every": 3,
        "sample_every": 0,
        "device": "cpu",
        "model": tiny_base(),
    }


VALIDATION = ValidationConfig(every=2, people=2, draws=4, views=1, pixels=16)


def rows(folder: Path) -> list[dict]:
    found = map(json.loads, (folder / "stats.jsonl").read_text().splitlines())
    return [row for row in found if "validation_loss" in row]


def test_training_validates_on_held_out_people_and_keeps_the_best(settings, tmp_path):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    train_base(TrainBaseConfig(output_dir=whole, validation=VALIDATION, **settings))
    measured = rows(whole)
    assert [row["step"] for row in measured] == [2, 4, 6]
    names = {"plane_error", "spread", "copy_ratio", "psnr", "loss_q1", "loss_q4", "loss_raw"}
    assert {f"validation_{name}" for name in names} <= measured[0].keys()
    kept = json.loads((whole / "snapshots" / "best" / "validation.json").read_text())
    best = min(measured, key=lambda row: row["validation_plane_error"])
    assert kept["step"] == best["step"]
    assert (whole / "snapshots" / "best" / "unet" / "config.json").exists()
    # Neither interruption nor validation itself changes anything.
    shorter = settings | {"steps": 3}
    train_base(TrainBaseConfig(output_dir=parted, validation=VALIDATION, **shorter))
    train_base(TrainBaseConfig(output_dir=parted, validation=VALIDATION, **settings))
    assert [row for row in rows(parted) if row["step"] != 3] == measured


def test_training_stops_when_nothing_gets_better(settings, tmp_path):
    """A learning rate that ruins the model: the first validation stays the best."""
    impatient = ValidationConfig(every=1, people=2, draws=1, views=0, patience=2)
    ruin = settings | {"learning_rate": 0.5, "steps": 40, "ema_decay": 0.0}
    config = TrainBaseConfig(output_dir=tmp_path / "run", validation=impatient, **ruin)
    train_base(config)
    steps = [row["step"] for row in rows(tmp_path / "run")]
    assert steps[-1] < 40
    best = json.loads((tmp_path / "run" / "snapshots" / "best" / "validation.json").read_text())
    assert steps[-1] == best["step"] + 2
    before = (tmp_path / "run" / "stats.jsonl").read_text()
    train_base(config)  # stays finished
    assert (tmp_path / "run" / "stats.jsonl").read_text() == before


def test_settings_out_of_bounds(settings, tmp_path):
    wrong = ValidationConfig(every=1, people=0)
    with pytest.raises(UserError, match="validation.people is 0"):
        train_base(TrainBaseConfig(output_dir=tmp_path / "x", validation=wrong, **settings))
