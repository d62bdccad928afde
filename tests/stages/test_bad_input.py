"""Bad input: one clear sentence, a non-zero status, and nothing lost or half-written."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from triavatar import cli

IMAGE, METADATA = "img_proc_fg_000001.png", "metadata_000001.json"


def refusal(arguments: list[str], capsys) -> str:
    """The one sentence a command refuses with."""
    capsys.readouterr()
    assert cli.main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def with_root(chain, stage: str, root: Path, output: Path) -> list[str]:
    arguments = chain.arguments(stage, output)
    arguments[arguments.index("--root") + 1] = str(root)
    return arguments


def damage_picture(subject: Path) -> str:
    (subject / IMAGE).write_bytes((subject / IMAGE).read_bytes()[:60])
    return IMAGE


def remove_picture_of_listed_view(subject: Path) -> str:
    (subject / "img_proc_fg_000000.png").unlink()
    return "img_proc_fg_000000.png"


def drop_alpha(subject: Path) -> str:
    Image.open(subject / IMAGE).convert("RGB").save(subject / IMAGE)
    return IMAGE


def other_size(subject: Path) -> str:
    Image.open(subject / IMAGE).resize((16, 16)).save(subject / IMAGE)
    return "16"


def drop_key(subject: Path) -> str:
    content = json.loads((subject / METADATA).read_text())
    del content["cameras"][0]["focal_length"]
    (subject / METADATA).write_text(json.dumps(content))
    return "focal_length"


def half_written_json(subject: Path) -> str:
    (subject / METADATA).write_text('{"cameras": [')
    return METADATA


def remove_metadata(subject: Path) -> str:
    (subject / METADATA).unlink()
    return METADATA


DAMAGES = [
    damage_picture,
    remove_picture_of_listed_view,
    drop_alpha,
    other_size,
    drop_key,
    half_written_json,
    remove_metadata,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_damaged_set(world, damage, tmp_path, capsys):
    root = tmp_path / "set"
    shutil.copytree(world.root, root)
    word = damage(root / "blue")
    sentence = refusal(with_root(world, "fit-decoder", root, tmp_path / "out"), capsys)
    assert word in sentence and "blue" in sentence


def test_empty_or_missing_set(world, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "empty", tmp_path / "missing"):
        for stage in ("fit-decoder", "train-vae"):
            assert str(root) in refusal(with_root(world, stage, root, tmp_path / "o"), capsys)


def test_damaged_triplanes(chain, tmp_path, capsys):
    fitted = tmp_path / "fitted"
    shutil.copytree(chain.out / "fit-triplanes", fitted)
    arguments = chain.arguments("evaluate", tmp_path / "out")
    arguments[arguments.index("--triplanes") + 1] = str(fitted)
    file = fitted / "triplanes" / "blue.safetensors"
    good = file.read_bytes()

    file.write_bytes(good[:200])
    assert "blue.safetensors" in refusal(arguments, capsys)

    manifest = json.loads((fitted / "manifest.json").read_text())
    planes = load_file(chain.out / "fit-triplanes" / "triplanes" / "blue.safetensors")["planes"]
    planes[0, 0, 0, 0] = torch.nan
    save_file({"planes": planes}, file, {"decoder_hash": manifest["decoder_hash"]})
    sentence = refusal(arguments, capsys)
    assert "blue.safetensors" in sentence and "NaN" in sentence

    save_file({"planes": planes * 0}, file, {"decoder_hash": "0" * 64})
    assert "decoder" in refusal(arguments, capsys)

    file.write_bytes(good)
    weights = fitted / "decoder" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file({k: v + 1e-3 for k, v in tensors.items()}, weights)
    assert "decoder" in refusal(arguments, capsys)


def test_features_of_another_image_size(chain, tmp_path, capsys):
    features = tmp_path / "features"
    assert chain.run("encode-features", features, "--image_size", "64") == 0
    for stage in ("sample-base", "sample-upsampler"):
        arguments = chain.arguments(stage, tmp_path / stage)
        arguments[arguments.index("--features") + 1] = str(features)
        assert str(features) in refusal(arguments, capsys)
    # A folder of features is not continued at another size, and what is there stays.
    before = (features / "manifest.json").read_bytes()
    assert "image_size" in refusal(chain.arguments("encode-features", features), capsys)
    assert (features / "manifest.json").read_bytes() == before


def test_run_folder_of_other_settings(chain, capsys):
    arguments = chain.arguments("train-base", chain.out / "train-base")
    sentence = refusal([*arguments, "--learning_rate", "0.5"], capsys)
    assert "learning_rate" in sentence
    arguments = chain.arguments("train-upsampler", chain.out / "train-base")
    assert "train-base" in refusal(arguments, capsys)


def test_models_that_do_not_belong_together(chain, tmp_path, capsys):
    arguments = chain.arguments("generate", tmp_path / "out")
    swapped = list(arguments)
    base, upsampler = swapped.index("--base") + 1, swapped.index("--upsampler") + 1
    swapped[base], swapped[upsampler] = swapped[upsampler], swapped[base]
    assert "BaseTriplanePipeline" in refusal(swapped, capsys)
    missing = list(arguments)
    missing[base] = str(tmp_path / "nowhere")
    assert "nowhere" in refusal(missing, capsys)
    assert not (tmp_path / "out").exists()


def test_bad_portraits(chain, tmp_path, capsys):
    arguments = chain.arguments("generate", tmp_path / "out")
    at = arguments.index("--root")
    portrait = tmp_path / "p.png"
    arguments[at : at + 2] = ["--portraits", str(portrait)]
    assert "p.png" in refusal(arguments, capsys)
    portrait.write_bytes(b"no picture")
    assert "p.png" in refusal(arguments, capsys)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(portrait)
    assert "square" in refusal([*arguments, "--no_prepare"], capsys)
    # Prepared as a photograph it shows nobody, or OpenCV is missing.
    assert "--no_prepare" in refusal(arguments, capsys)
    assert not (tmp_path / "out" / "triplanes").exists()
    neither = arguments[:at] + arguments[at + 2 :]
    assert "PHOTO" in refusal(neither, capsys)


def test_output_that_can_not_be_written(world, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for stage in ("train-vae", "fit-decoder"):
        arguments = world.arguments(stage, tmp_path / "file" / "out")
        assert str(tmp_path / "file") in refusal(arguments, capsys)
    if os.geteuid() == 0:
        # Root may write anywhere but where the kernel itself answers.
        locked = Path("/proc/out")
    else:
        locked = tmp_path / "locked" / "out"
        locked.parent.mkdir(mode=0o500)
    assert "out" in refusal(world.arguments("fit-decoder", locked), capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_asked_for_gpu_that_is_not_there(world, tmp_path, capsys):
    for stage in ("train-vae", "fit-decoder"):
        sentence = refusal([*world.arguments(stage, tmp_path / "o"), "--device", "cuda"], capsys)
        assert "--device cpu" in sentence


def test_unknown_key_in_a_stage_configuration(world, tmp_path, capsys):
    config = tmp_path / "c.yaml"
    config.write_text("inner_step: 3\n")
    arguments = world.arguments("fit-decoder", tmp_path / "o")
    arguments[arguments.index("--config") + 1] = str(config)
    assert "did you mean inner_steps?" in refusal(arguments, capsys)
