"""Model folders whose description and weights don't fit: one sentence, before memory is taken."""

import json
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from renderer.decoder import TriplaneDecoder
from runtime.errors import UserError
from runtime.formats.models import load_model

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path):
    TriplaneDecoder(8, 5, 16).save_pretrained(tmp_path)
    return tmp_path


def load(folder):
    return load_model(TriplaneDecoder, folder, "decoder", "fit it again")


def test_a_whole_one_loads(folder):
    decoder = load(folder)
    assert not decoder.training and decoder.config["hidden"] == 16


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"channels": 10**12}, "channels is out of all bounds"),
        ({"hidden": 2**20}, r"weights density_in.weight are F32 \[16, 15\]"),
        ({"hidden": "16"}, "makes no decoder"),
        ({"color_channels": 9}, "makes no decoder"),
        ({"_class_name": "AutoencoderKL"}, "describes no decoder"),
    ],
)
def test_a_description_of_something_else(folder, change, words):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=words):
        load(folder)


@pytest.mark.parametrize("damage", ["missing", "renamed", "shape", "nan", "int", "cut", "none"])
def test_damaged_weights(folder, damage):
    tensors = load_file(folder / WEIGHTS)
    bias = tensors.pop("density_in.bias")
    wrong = {
        "missing": {},
        "renamed": {"density_in.biases": bias},
        "shape": {"density_in.bias": bias[:3].clone()},
        "nan": {"density_in.bias": bias * torch.nan},
        "int": {"density_in.bias": bias.long()},
    }
    save_file(tensors | wrong.get(damage, {}), folder / WEIGHTS)
    if damage == "cut":
        (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:300])
    if damage == "none":
        (folder / WEIGHTS).unlink()
    with pytest.raises(UserError, match="; fit it again"):
        load(folder)


def test_a_description_of_endless_layers_takes_no_time(tmp_path):
    from diffusers import AutoencoderKL

    AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=2).save_pretrained(
        tmp_path
    )
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layers_per_block": 10**6}))
    start = time.process_time()
    with pytest.raises(UserError, match="makes no VAE"):
        load_model(AutoencoderKL, tmp_path, "VAE", "train it again")
    assert time.process_time() - start < 20
