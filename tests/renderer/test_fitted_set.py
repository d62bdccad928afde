"""Triplane folders: they refuse what does not belong together."""

import json

import pytest
import torch

from renderer.fitted_set import FittedSet
from renderer.triplane import save_triplane
from runtime.errors import UserError
from tests.scenes import random_decoder

SHAPE = (3, 6, 8, 8)


@pytest.fixture
def folder(tmp_path):
    fitted = FittedSet.create(tmp_path / "set", random_decoder(), SHAPE)
    fitted.put("someone", torch.full(SHAPE, 0.25))
    return tmp_path / "set"


def test_round_trip(folder):
    fitted = FittedSet.open(folder)
    assert fitted.names == ["someone"] and fitted.shape == SHAPE
    assert torch.equal(fitted.load("someone"), torch.full(SHAPE, 0.25))
    again = fitted.decoder()
    features = torch.rand(4, 6)
    assert torch.equal(again.density(features), random_decoder().density(features))
    assert FittedSet.create(folder, random_decoder(), SHAPE).manifest == fitted.manifest


def test_mean_of_all_or_all_but_one(folder):
    fitted = FittedSet.open(folder)
    fitted.put("other", torch.full(SHAPE, 0.75))
    assert torch.equal(fitted.mean(), torch.full(SHAPE, 0.5))
    assert torch.equal(fitted.mean(without="someone"), torch.full(SHAPE, 0.75))
    fitted.path("other").unlink()
    with pytest.raises(UserError, match="no triplanes"):
        fitted.mean(without="someone")


def test_another_decoder_or_shape_needs_another_folder(folder):
    other = random_decoder()
    with torch.no_grad():
        other.density_out.bias += 1
    with pytest.raises(UserError, match="another decoder hash"):
        FittedSet.create(folder, other, SHAPE)
    with pytest.raises(UserError, match="another shape"):
        FittedSet.create(folder, random_decoder(), (3, 6, 16, 16))
    with pytest.raises(ValueError, match="planes must be"):
        FittedSet.open(folder).put("other", torch.zeros(3, 6, 4, 4))


def test_swapped_decoder_is_noticed(folder):
    other = random_decoder()
    with torch.no_grad():
        other.density_out.bias += 1
    other.save_pretrained(folder / "decoder")
    with pytest.raises(UserError, match="not the one"):
        FittedSet.open(folder).decoder()


def test_foreign_triplanes_are_noticed(folder):
    fitted = FittedSet.open(folder)
    save_triplane(fitted.path("stray"), torch.zeros(SHAPE), {"decoder_hash": "of another"})
    with pytest.raises(UserError, match="made for another decoder"):
        fitted.load("stray")
    own = {"decoder_hash": fitted.manifest["decoder_hash"]}
    save_triplane(fitted.path("small"), torch.zeros(3, 6, 4, 4), own)
    with pytest.raises(UserError, match="holds planes of shape"):
        fitted.load("small")
    with pytest.raises(UserError, match="does not exist"):
        fitted.load("nobody")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", "other", "format is 'other' but must be"),
        ("version", 99, "version is 99 but must be"),
        ("plane_order", ["xz", "xy", "yz"], "plane_order is"),
        ("axis_order", "C P H W", "axis_order is"),
        ("decoder_hash", None, "decoder_hash is missing"),
    ],
)
def test_manifests_of_other_meaning_are_refused(folder, key, value, message):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    if value is None:
        del manifest[key]
    else:
        manifest[key] = value
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=message):
        FittedSet.open(folder)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="is not a triplane folder"):
        FittedSet.open(tmp_path)
