"""Compact and smaller sets: the error of 8 bits is bounded; smaller is what training would read."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from renderer.fitted_set import FittedSet
from renderer.triplane import dequantize, load_triplane, quantize, resize_planes, save_triplane
from renderer.triplane_sets import DownsampleConfig, downsample
from runtime.errors import UserError
from tests.scenes import random_decoder

SHAPE = (3, 6, 32, 32)


def planes_of(seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    spread = torch.rand(3, 6, 1, 1, generator=random)
    return (torch.randn(SHAPE, generator=random) * spread + spread - 0.5).clamp(-1, 1)


@pytest.fixture
def fitted(tmp_path) -> FittedSet:
    made = FittedSet.create(tmp_path / "set", random_decoder(), SHAPE)
    for seed in range(3):
        made.put(f"s{seed}", planes_of(seed))
    return made


def test_eight_bits_err_by_half_a_step_at_most():
    planes = planes_of(0)
    planes[1, 2] = 0.37  # a constant channel has no range to spread
    packed = quantize(planes)
    back = dequantize(packed["planes"], packed["scale"], packed["offset"])
    reach = planes.flatten(2).amax(2) - planes.flatten(2).amin(2)
    assert ((back - planes).abs().flatten(2).amax(2) <= reach / 255 / 2 + 1e-6).all()
    assert torch.equal(back[1, 2], planes[1, 2])
    # The ends of the range are kept: nothing drifts when a set is written again.
    again = quantize(back)
    assert torch.equal(again["planes"], packed["planes"])


def test_an_eight_bit_set(fitted, tmp_path):
    copy = tmp_path / "copy"
    downsample(DownsampleConfig(fitted.folder, copy, storage="uint8"))
    compact = FittedSet.open(copy)
    assert compact.manifest["dtype"] == "uint8" and compact.names == fitted.names
    assert load_file(compact.path("s0"))["planes"].dtype == torch.uint8
    assert (compact.load("s1") - fitted.load("s1")).abs().max() <= 1 / 255 + 1e-6
    assert compact.path("s0").stat().st_size < 0.55 * fitted.path("s0").stat().st_size
    assert torch.equal(load_triplane(compact.path("s1")), compact.load("s1"))
    with pytest.raises(UserError, match="another dtype"):
        downsample(DownsampleConfig(fitted.folder, copy))


def test_codes_without_their_scale_are_refused(tmp_path):
    file = tmp_path / "x.safetensors"
    save_triplane(file, planes_of(0), dtype="uint8")
    tensors = load_file(file)
    del tensors["scale"]
    save_file(tensors, file)
    with pytest.raises(UserError, match="without a scale"):
        load_triplane(file)


def test_a_manifest_whose_version_and_dtype_differ(fitted):
    path = fitted.folder / "manifest.json"
    path.write_text(json.dumps(fitted.manifest | {"dtype": "uint8"}))
    with pytest.raises(UserError, match="dtype uint8 is none of version 1"):
        FittedSet.open(fitted.folder)


def test_downsample_resizes_and_keeps_what_is_there(fitted, tmp_path):
    config = DownsampleConfig(fitted.folder, tmp_path / "small", size=8)
    downsample(config)
    small = FittedSet.open(tmp_path / "small")
    assert small.shape == (3, 6, 8, 8) and small.names == ["s0", "s1", "s2"]
    expected = resize_planes(fitted.load("s2")[None], 8)[0]
    assert (small.load("s2") - expected).abs().max() < 2**-11
    before = small.path("s0").stat().st_mtime_ns
    small.path("s1").unlink()
    downsample(config)
    assert small.path("s0").stat().st_mtime_ns == before and small.path("s1").exists()
    with pytest.raises(UserError, match="size 64 can't be made"):
        downsample(DownsampleConfig(fitted.folder, tmp_path / "large", size=64))
    with pytest.raises(UserError, match="is the set itself"):
        downsample(DownsampleConfig(fitted.folder, fitted.folder))
