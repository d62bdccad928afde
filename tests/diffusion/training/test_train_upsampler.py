import json
import shutil
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from captures.multiview import MultiViewSet
from diffusion.conditioning.feature_set import FeatureSet
from diffusion.data.pairs import PairedSet
from diffusion.data.portraits import StoredPortraits
from diffusion.data.upsampling_pairs import AugmentConfig, UpsamplingBatch, UpsamplingDataset
from diffusion.sampling.model_files import load_pipeline
from diffusion.sampling.pipelines import UpsampleTriplanePipeline
from diffusion.sampling.solvers import SamplerConfig
from diffusion.training.render_loss import PatchSource
from diffusion.training.train_upsampler import (
    RenderLossConfig,
    TrainUpsamplerConfig,
    UpsamplerModelConfig,
    train_upsampler,
)
from diffusion.training.validation import ValidationConfig
from renderer.fitted_set import FittedSet
from renderer.triplane import resize_planes
from runtime.errors import UserError
from runtime.formats.tensor_files import load_tensors

MODEL = UpsamplerModelConfig(
    width=8,
    multipliers=(1, 1),
    blocks=(1, 1),
    attention_sizes=(8,),
    head_channels=8,
    latent_patch=4,
    latent_width=8,
    feature_patches=(16, 8, 4),
    token_width=8,
)
RENDER = RenderLossConfig(
    patch_size=4, downscales=(2,), downscale_probabilities=(1.0,), steps=16, grid=8
)


@pytest.fixture
def settings(tiny_fitted: FittedSet, tiny_features: FeatureSet, tiny_views: MultiViewSet) -> dict:
    return {
        "triplanes": tiny_fitted.folder,
        "features": tiny_features.folder,
        "root": tiny_views.root,
        "low_res_size": 8,
        "plane_size": 16,
        "num_timesteps": 20,
        "model": MODEL,
        "render": RENDER,
        "steps": 4,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "ema_decay": 0.5,
        "log_every": 1,
        "save_every": 2,
        "sample_every": 0,
        "device": "cpu",
    }


def saved(folder: Path) -> dict[str, torch.Tensor]:
    return load_tensors(
        folder / "snapshots" / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    )[0]


def test_stage_trains_resumes_and_its_pipeline_loads(settings: dict, tmp_path: Path) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    train_upsampler(TrainUpsamplerConfig(output_dir=whole, **settings))
    train_upsampler(TrainUpsamplerConfig(output_dir=parted, **(settings | {"steps": 2})))
    train_upsampler(TrainUpsamplerConfig(output_dir=parted, **settings))
    one, two = saved(whole), saved(parted)
    assert all(torch.equal(one[key], two[key]) for key in one)
    rows = [json.loads(line) for line in (whole / "stats.jsonl").read_text().splitlines()]
    for row in rows:
        assert row["loss"] == pytest.approx(row["mse"] + row["render_l1"], rel=1e-5)
    pipeline = UpsampleTriplanePipeline.from_pretrained(whole / "snapshots" / "model")
    portrait = FeatureSet.open(settings["features"]).load("s0")
    planes = pipeline(torch.zeros(1, 3, 8, 8, 8), portrait, sampler=SamplerConfig(2))
    assert planes.shape == (1, 3, 8, 16, 16)


def test_the_render_loss_reaches_the_weights(settings: dict, tmp_path: Path) -> None:
    """The same run with and without it ends with different weights."""
    settings |= {"steps": 2, "learning_rate": 1e-2}
    off = RenderLossConfig(l1_weight=0.0)
    train_upsampler(TrainUpsamplerConfig(output_dir=tmp_path / "on", **settings))
    train_upsampler(TrainUpsamplerConfig(output_dir=tmp_path / "off", **settings | {"render": off}))
    on, plain = saved(tmp_path / "on"), saved(tmp_path / "off")
    assert any(not torch.allclose(on[key], plain[key], atol=1e-6) for key in on)
    rows = (tmp_path / "off" / "stats.jsonl").read_text()
    assert "render_l1" not in rows


def test_problems_pair_damaged_low_with_true_high(
    tiny_fitted: FittedSet, tiny_features: FeatureSet, tiny_views: MultiViewSet
) -> None:
    pairs = PairedSet(tiny_fitted, StoredPortraits(tiny_features, 1.0), ["s0", "s2"], (8, 16))
    source = PatchSource(tiny_views, 4, (2,), (1.0,))
    clean = UpsamplingDataset(pairs, 20, 0.0, 1, AugmentConfig(probability=0.0), source)
    damaged = UpsamplingDataset(pairs, 20, 0.0, 1, AugmentConfig(probability=1.0), None)
    a, b = clean[5], damaged[5]
    planes = tiny_fitted.load(a.names[0])[None]
    assert torch.equal(a.planes.float(), planes)
    # Shrunk planes are rounded as a triplane folder stores them.
    shrunk = resize_planes(planes, 8).half().float()
    assert torch.equal(a.low_res.float(), shrunk)
    assert torch.equal(b.planes, a.planes) and torch.equal(b.noise, a.noise)
    assert b.low_res.shape == a.low_res.shape and not torch.equal(b.low_res, a.low_res)
    assert torch.equal(damaged[5].low_res, b.low_res)
    assert b.patch is None and a.patch is not None
    joined = UpsamplingBatch.join([clean[5], clean[6]]).to("cpu")
    assert joined.patch is not None and joined.patch.colors.shape == (2, 16, 3)
    assert joined.low_res.shape == (2, 3, 8, 8, 8)


def test_validation_decides_who_enlarges(settings: dict, tmp_path: Path) -> None:
    """The better of model and resizing on held-out people is recorded, and used."""
    root = tmp_path / "views"
    shutil.copytree(settings["root"], root)
    about = json.loads((root / "dataset.json").read_text())
    about["splits"]["identities"] = {"train": ["s0", "s1", "s2"], "validation": ["s3", "held"]}
    (root / "dataset.json").write_text(json.dumps(about))
    validation = ValidationConfig(every=2, people=2, draws=1, views=0)
    settings |= {"root": root, "validation": validation, "render": RenderLossConfig(l1_weight=0)}
    settings |= {"ema_decay": 0.0, "learning_rate": 0.3}  # a ruined model: resizing must win
    train_upsampler(TrainUpsamplerConfig(output_dir=tmp_path / "run", **settings))
    best = tmp_path / "run" / "snapshots" / "best"
    found = json.loads((best / "validation.json").read_text())
    model, resized = (found[f"validation_{each}texel_error"] for each in ("", "resized_"))
    assert model > resized > 0
    assert json.loads((best / "model_index.json").read_text())["enlarge"] == "resizing"
    assert "resizing is closer to held-out people" in (tmp_path / "run" / "log.txt").read_text()

    pipeline, _ = load_pipeline(UpsampleTriplanePipeline, tmp_path / "run", torch.device("cpu"))
    portrait = FeatureSet.open(settings["features"]).load("s3")
    fitted = FittedSet.open(settings["triplanes"])
    small = resize_planes(fitted.load("s3")[None], 8)
    # What people share keeps its fine detail.
    mean = torch.stack([fitted.load(name) for name in ("s0", "s1", "s2")]).mean(dim=0)
    apart = (small - resize_planes(mean[None], 8))[0]
    enlarged = mean + F.interpolate(apart, (16, 16), mode="bicubic", align_corners=True)
    assert torch.allclose(pipeline(small, portrait)[0], enlarged.clamp(-1, 1), atol=1e-5)
    sampler = SamplerConfig(2)
    other = pipeline(small, portrait, sampler=sampler, enlarge="model")[0]
    assert not torch.allclose(other, enlarged, atol=0.05)


def test_bad_settings(settings: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="low_res_size 16 must be smaller"):
        train_upsampler(
            TrainUpsamplerConfig(output_dir=tmp_path, **settings | {"low_res_size": 16})
        )
    with pytest.raises(UserError, match="plane size 64 can't be made"):
        train_upsampler(TrainUpsamplerConfig(output_dir=tmp_path, **settings | {"plane_size": 64}))
