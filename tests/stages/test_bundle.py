"""A model as one folder: the avatars of the runs it was made of, and what is refused."""

import json
import os
import shutil
import stat

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from diffusion.sampling.solvers import SamplerConfig
from renderer.fitted_set import FittedSet
from renderer.render import RenderSettings
from runtime.errors import UserError
from runtime.version import commit
from triavatar import Avatar, AvatarPipeline, Bundle, SamplingConfig, cli

FEW_STEPS = SamplingConfig(SamplerConfig(steps=2), SamplerConfig(steps=2))
MARCH = RenderSettings(steps=48, grid=16)


def parts(chain) -> list[str]:
    """The chain's outputs as flags of ``triavatar bundle``."""
    out = chain.out
    flags = ["--decoder", str(out / "fit-decoder"), "--base", str(out / "train-base")]
    flags += ["--upsampler", str(out / "train-upsampler")]
    return [*flags, "--vae", str(out / "train-vae" / "snapshots" / "model")]


@pytest.fixture(scope="module")
def folder(chain, tmp_path_factory):
    """The chain's models as a bundle, weights as they are."""
    folder = tmp_path_factory.mktemp("bundle") / "model"
    exact = ["--storage", "float32", "--license", "CC0-1.0", "--output_dir", str(folder)]
    assert cli.main(["bundle", *parts(chain), *exact]) == 0
    return folder


@pytest.fixture(scope="module")
def likeness(chain, tmp_path_factory):
    """A bundle of decoder and likeness alone."""
    parent = tmp_path_factory.mktemp("likeness")
    people = ["--root", str(chain.root), "--triplanes", str(chain.out / "fit-triplanes")]
    assert (
        cli.main(
            [
                "train-likeness",
                *people,
                "--encoder.epochs",
                "2",
                "--output_dir",
                str(parent / "learnt"),
            ]
        )
        == 0
    )
    flags = ["--decoder", str(chain.out / "fit-decoder"), "--likeness", str(parent / "learnt")]
    assert cli.main(["bundle", *flags, "--output_dir", str(parent / "model")]) == 0
    return parent / "model"


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.fixture
def portrait(chain, tmp_path):
    return shutil.copy(chain.root / "blue" / "img_proc_fg_000000.png", tmp_path / "blue.png")


def test_a_bundle_makes_the_avatars_of_its_runs(chain, folder, portrait, tmp_path):
    config = str(chain.configs / "generate.yaml")
    command = ["generate", str(portrait), "--config", config, "--output_dir", str(tmp_path / "o")]
    assert cli.main([*command, "--model", str(folder)]) == 0
    of_runs = FittedSet.open(chain.out / "generate").load("blue")
    assert torch.equal(FittedSet.open(tmp_path / "o").load("blue"), of_runs)


def test_python_makes_saves_and_loads_the_same_avatar(chain, folder, portrait, tmp_path):
    pipeline = AvatarPipeline.from_pretrained(folder, device="cpu")
    avatar = pipeline(portrait, sampling=FEW_STEPS)
    assert avatar.name == "blue"
    assert torch.equal(avatar.planes, FittedSet.open(chain.out / "generate").load("blue"))
    # The same from memory, and the noise follows name and seed.
    again, other = pipeline([Image.open(portrait)] * 2, name="blue", sampling=FEW_STEPS)
    assert again.name == "blue_0" and not torch.equal(again.planes, other.planes)
    same = pipeline(np.asarray(Image.open(portrait)), name="blue", sampling=FEW_STEPS)
    assert torch.equal(same.planes, avatar.planes)
    avatar.save(tmp_path / "saved")
    loaded = Avatar.load(tmp_path / "saved", device="cpu")
    assert loaded.name == "blue" and loaded.record == avatar.record
    assert np.array_equal(loaded.portrait, avatar.portrait)
    picture = np.asarray(loaded.picture(azimuth=40, size=24, settings=MARCH))
    assert np.array_equal(picture, avatar.picture(azimuth=40, size=24, settings=MARCH))
    assert picture.shape == (24, 24, 3) and picture.min() < 250
    turn = loaded.turntable(tmp_path / "turn.gif", size=16, frames=3, settings=MARCH)
    assert Image.open(turn).n_frames == 3
    with pytest.raises(UserError, match="turn.avi"):
        loaded.turntable(tmp_path / "turn.avi", size=16, frames=3, settings=MARCH)


def test_likeness_needs_no_diffusion(chain, likeness, portrait, tmp_path, capsys):
    assert sorted(Bundle.open(likeness).parts) == ["decoder", "likeness"]
    # Cut out and on white, the same person; more portraits may follow into the same folder.
    cut_out = Image.open(portrait)
    white = Image.new("RGB", cut_out.size, "white")
    white.paste(cut_out, (0, 0), cut_out)
    white.save(tmp_path / "white.png")
    config = ["--config", str(chain.configs / "generate.yaml"), "--likeness", "off"]
    command = ["--model", str(likeness), *config, "--output_dir", str(tmp_path / "o")]
    assert cli.main(["generate", *command, str(portrait)]) == 0
    assert cli.main(["generate", str(tmp_path / "white.png"), *command]) == 0
    made = [Avatar.load(tmp_path / "o", name=name, device="cpu") for name in ("blue", "white")]
    assert made[0].record["likeness"]["level"] == "off" and made[0].record["seed"] == 0
    near = (made[0].planes - made[1].planes).abs().mean()
    assert near < 0.1 * made[0].planes.abs().mean()
    assert "triavatar view" in capsys.readouterr().out


def test_half_the_room_and_nearly_the_same_avatar(chain, folder, portrait, tmp_path):
    half = tmp_path / "half"
    assert cli.main(["bundle", *parts(chain), "--output_dir", str(half)]) == 0
    weights = "base/unet/diffusion_pytorch_model.safetensors"
    kinds = {tensor.dtype for tensor in load_file(half / weights).values()}
    assert torch.float16 in kinds and torch.float32 not in kinds
    pipeline = AvatarPipeline.from_pretrained(half, device="cpu")
    assert pipeline.diffusion.base.unet.dtype == torch.float32
    exact = FittedSet.open(chain.out / "generate").load("blue")
    planes = pipeline(portrait, sampling=FEW_STEPS).planes
    assert 0 < (planes - exact).abs().mean() < 0.02


def test_written_again_it_has_the_same_bytes(folder, tmp_path):
    pipeline = AvatarPipeline.from_pretrained(folder, device="cpu")
    again = pipeline.save_pretrained(tmp_path / "x", license="CC0-1.0", storage="float32").folder
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert all((folder / f).read_bytes() == (again / f).read_bytes() for f in files)
    assert Bundle.open(again).index.commit == commit()
    assert (commit() or "triavatar") in (again / "README.md").read_text()
    pipeline.save_pretrained(again, license="CC0-1.0", storage="float32")
    with pytest.raises(UserError, match="something else"):
        pipeline.save_pretrained(again, license="MIT", storage="float32")


def test_everyone_may_read_what_the_umask_lets_them(folder, chain):
    mask = os.umask(0o22)
    os.umask(mask)
    written = [folder, chain.out / "train-base" / "snapshots", chain.out / "generate"]
    for file in (file for place in written for file in place.rglob("*.safetensors")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask, file
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~mask


def test_altered_missing_and_foreign_files_are_refused(copy):
    weights = copy / "decoder" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=f"{weights}.*SHA-256"):
        Bundle.open(copy)
    with open(weights, "r+b") as file:
        file.truncate(2**40)  # takes no room on disk, but half an hour to be hashed
    with pytest.raises(UserError, match=f"{weights}.*another size"):
        Bundle.open(copy)
    weights.unlink()
    with pytest.raises(UserError, match=f"{weights} is missing"):
        Bundle.open(copy)
    weights.write_bytes(whole)
    # A pickle that a loader might prefer to the weights.
    (copy / "base" / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="model.bin doesn't belong"):
        Bundle.open(copy)


def test_indices_that_can_not_be_read(copy, tmp_path):
    with pytest.raises(UserError, match="bundle.json"):
        Bundle.open(tmp_path)
    index = json.loads((copy / "bundle.json").read_text())
    for change, word in (
        ({"version": 9}, "version is 9 but must be 1"),
        ({"parts": {"decoder": {}}}, "neither diffusion models nor likeness"),
        ({"parts": {"decoder": {}, "vae": {}}}, "no base"),
        ({"files": None}, "files is None"),
        ({"files": {"../x": {"sha256": "0", "bytes": 1}}}, "doesn't belong"),
    ):
        (copy / "bundle.json").write_text(json.dumps(index | change))
        with pytest.raises(UserError, match=word):
            Bundle.open(copy)


def test_parts_of_different_chains_are_refused(chain, tmp_path, capsys):
    stranger = chain.run("fit-decoder", tmp_path / "other", "--seed", "5")
    assert stranger == 0
    arguments = ["--decoder", str(tmp_path / "other"), *parts(chain)[2:]]
    assert cli.main(["bundle", *arguments, "--output_dir", str(tmp_path / "b")]) == 2
    assert "another decoder" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other"]


def test_models_of_the_hub_come_from_its_cache(folder, tmp_path, monkeypatch):
    """By id, through huggingface_hub itself; without a network it reads what it fetched before."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    repository = tmp_path / "models--anna--heads"
    shutil.copytree(folder, repository / "snapshots" / "0123abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    how = {"cache_dir": tmp_path, "local_files_only": True, "device": "cpu"}
    pipeline = AvatarPipeline.from_pretrained("anna/heads", **how)
    assert "0123abc" in str(pipeline.sources["decoder"])
    with pytest.raises(UserError, match="anna/feet.*hub"):
        AvatarPipeline.from_pretrained("anna/feet", **how)
    with pytest.raises(UserError, match="no model nowhere"):
        AvatarPipeline.from_pretrained("nowhere")


def test_pushing_uploads_the_whole_folder(folder, monkeypatch):
    from huggingface_hub import HfApi

    seen = {}

    def upload(self, *, repo_id, folder_path):
        seen[repo_id] = sorted(Bundle.open(folder_path).index.files)
        return "commit"

    monkeypatch.setattr(HfApi, "create_repo", lambda self, name, **how: None)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    pipeline = AvatarPipeline.from_pretrained(folder, device="cpu")
    assert pipeline.push_to_hub("anna/heads") == "commit"
    assert seen == {"anna/heads": sorted(Bundle.open(folder).index.files)}
