"""Triplane layout, resizing and files."""

import numpy as np
import pytest
import torch

from renderer.triplane import (
    load_triplane,
    resize_planes,
    rollout,
    sample_planes,
    save_triplane,
    unroll,
)
from runtime.errors import UserError
from runtime.formats.tensor_files import save_tensors


def test_rollout_puts_planes_side_by_side_and_unroll_undoes_it():
    planes = torch.randn(2, 3, 4, 5, 6)
    image = rollout(planes)
    assert image.shape == (2, 4, 5, 18)
    assert torch.equal(image[1, 2, :, 6:12], planes[1, 1, 2])
    assert torch.equal(unroll(image), planes)


def test_roll_outs_of_other_widths_are_refused():
    with pytest.raises(ValueError, match="roll-out"):
        unroll(torch.zeros(1, 2, 4, 10))


@pytest.mark.parametrize("size", [3, 8, 13, 32])
def test_resizing_keeps_constants_and_range(size):
    constant = torch.full((1, 3, 2, 16, 16), 0.7)
    assert torch.allclose(resize_planes(constant, size), torch.tensor(0.7), atol=1e-5)
    noise = torch.rand(1, 3, 2, 16, 16) * 2 - 1
    assert resize_planes(noise, size).abs().max() <= 1 + 1e-6


def test_enlarging_keeps_a_linear_field():
    ramp = torch.linspace(-1, 1, 9).expand(1, 3, 1, 9, 9)
    assert torch.allclose(
        resize_planes(ramp, 17), torch.linspace(-1, 1, 17).expand(1, 3, 1, 17, 17), atol=1e-6
    )


def test_shrinking_averages_what_lies_between():
    stripes = torch.tensor([1.0, -1.0]).repeat(16).expand(1, 3, 1, 32, 32)
    small = resize_planes(stripes, 8)
    assert small[..., 1:-1, 1:-1].abs().max() < 0.2  # nearest or bilinear would give ±1


def test_a_corner_of_the_box_is_the_outermost_texel():
    planes = torch.randn(3, 2, 4, 4)
    corner = sample_planes(planes, torch.tensor([[-1.0, -1.0, -1.0]]))
    assert torch.allclose(corner[0], planes[:, :, 0, 0].mean(0), atol=1e-6)


def test_safetensors_round_trip_in_half_precision(tmp_path):
    planes = torch.rand(3, 4, 8, 8) * 2 - 1
    save_triplane(tmp_path / "a.safetensors", planes)
    loaded = load_triplane(tmp_path / "a.safetensors")
    assert loaded.dtype == torch.float32
    assert (loaded - planes).abs().max() < 1e-3


def test_published_npy_layout_loads_and_saves(tmp_path):
    array = np.random.default_rng(0).normal(size=(3, 1, 32, 8, 8)).astype(np.float32)
    np.save(tmp_path / "theirs.npy", array)
    planes = load_triplane(tmp_path / "theirs.npy")
    assert np.allclose(planes.numpy(), array[:, 0].clip(-1, 1))
    save_triplane(tmp_path / "ours.npy", planes)
    assert np.load(tmp_path / "ours.npy").shape == (3, 1, 32, 8, 8)


def test_values_out_of_range_are_clamped(tmp_path):
    save_triplane(tmp_path / "a.safetensors", torch.full((3, 2, 4, 4), 3.0))
    assert load_triplane(tmp_path / "a.safetensors").max() == 1.0


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_nan_is_refused_both_ways(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    planes = torch.zeros(3, 2, 4, 4)
    planes[0, 0, 0, 0] = torch.nan
    with pytest.raises(UserError, match="NaN"):
        save_triplane(path, planes)
    assert not path.exists()
    if suffix == ".npy":
        np.save(path, planes.numpy()[:, None])
    else:
        save_tensors(path, {"planes": planes})
    with pytest.raises(UserError, match="NaN"):
        load_triplane(path)


@pytest.mark.parametrize("shape", [(3, 2, 4), (2, 2, 4, 4), (3, 2, 4, 5), (3, 2, 2, 4, 4)])
def test_other_shapes_are_refused(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.float32))
    with pytest.raises(UserError, match="expected"):
        load_triplane(tmp_path / "a.npy")


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_triplane(tmp_path / "missing.npy")
    with pytest.raises(UserError, match="does not exist"):
        load_triplane(tmp_path / "missing.safetensors")
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY\x01")
    with pytest.raises(UserError, match="not a readable"):
        load_triplane(tmp_path / "cut.npy")
    save_triplane(tmp_path / "a.safetensors", torch.zeros(3, 2, 4, 4))
    content = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="truncated"):
        load_triplane(tmp_path / "cut.safetensors")
    save_tensors(tmp_path / "other.safetensors", {"weights": torch.zeros(3)})
    with pytest.raises(UserError, match="no tensor named 'planes'"):
        load_triplane(tmp_path / "other.safetensors")
