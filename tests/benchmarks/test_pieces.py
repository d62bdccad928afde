"""Models that come back in pieces are what they were, within half precision."""

import importlib.util

import pytest
import torch
from safetensors.torch import load_file, save_file


@pytest.fixture
def pieces(project):
    """``benchmarks/gpu/pieces.py``, which is a script."""
    spec = importlib.util.spec_from_file_location(
        "pieces", project / "benchmarks" / "gpu" / "pieces.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def model(tmp_path):
    """A folder of a model: weights, whole numbers, and text."""
    folder = tmp_path / "model"
    (folder / "unet").mkdir(parents=True)
    torch.manual_seed(0)
    save_file(
        {"weight": torch.randn(64, 64), "steps": torch.arange(5)},
        folder / "unet" / "weights.safetensors",
    )
    (folder / "model_index.json").write_text('{"a": 1}')
    return folder


def test_there_and_back(pieces, model, tmp_path):
    written = pieces.split(model, tmp_path / "out" / "base", piece=2000)
    assert len(written) > 2 and all(path.stat().st_size <= 2000 for path in written)
    pieces.join(written[::-1], tmp_path / "back")
    found = load_file(tmp_path / "back" / "unet" / "weights.safetensors")
    expected = load_file(model / "unet" / "weights.safetensors")
    assert found["weight"].dtype == torch.float32
    assert torch.equal(found["weight"], expected["weight"].half().float())
    assert torch.equal(found["steps"], expected["steps"])
    names = sorted(p.relative_to(model) for p in model.rglob("*"))
    assert sorted(p.relative_to(tmp_path / "back") for p in (tmp_path / "back").rglob("*")) == names


def test_fewer_pieces_than_before_leave_no_old_one(pieces, model, tmp_path):
    many = pieces.split(model, tmp_path / "base", piece=2000)
    few = pieces.split(model, tmp_path / "base", piece=10**6)
    assert len(many) > len(few) == 1
    assert list(tmp_path.glob("base.*")) == few


def test_what_is_known_by_its_hash_comes_back_to_the_bit(pieces, model, tmp_path):
    written = pieces.split(model, tmp_path / "decoder", exact=True)
    pieces.join(written, tmp_path / "back")
    name = "unet/weights.safetensors"
    assert (tmp_path / "back" / name).read_bytes() == (model / name).read_bytes()


def test_a_model_that_is_not_there_is_refused(pieces, tmp_path):
    with pytest.raises(SystemExit, match="no folder"):
        pieces.split(tmp_path / "model", tmp_path / "base")


def test_pieces_that_are_not_whole_are_refused(pieces, model, tmp_path):
    written = pieces.split(model, tmp_path / "base", piece=2000)
    with pytest.raises(SystemExit, match="not whole"):
        pieces.join(written[:-1], tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_weights_that_half_precision_cannot_hold_are_refused(pieces, tmp_path):
    (tmp_path / "model").mkdir()
    save_file({"weight": torch.tensor([1e6])}, tmp_path / "model" / "w.safetensors")
    with pytest.raises(SystemExit, match="too large for half precision"):
        pieces.split(tmp_path / "model", tmp_path / "base")
