"""The stages sample-base and sample-upsampler: chain, resuming, and what they refuse."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffusion.conditioning.feature_set import FeatureSet
from diffusion.networks import PlaneNormalization, TriplaneUNet, TriplaneUpsampler
from diffusion.sampling.pipelines import BaseTriplanePipeline, UpsampleTriplanePipeline
from diffusion.sampling.sample_base import SampleBaseConfig, sample_base
from diffusion.sampling.sample_upsampler import SampleUpsamplerConfig, sample_upsampler
from diffusion.sampling.schedules import make_scheduler
from renderer.decoder import TriplaneDecoder
from renderer.fitted_set import FittedSet
from runtime.errors import UserError
from runtime.files import write_json

LOW, HIGH, CHANNELS = 8, 16, 8


def save(pipeline, folder: Path, fitted: FittedSet, features: FeatureSet) -> Path:
    """Writes a model folder as the training stages do, with random weights."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in pipeline.unet.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    pipeline.save_pretrained(folder / "snapshots" / "model")
    write_json(
        folder / "snapshots" / "model" / "training_data.json",
        {
            "decoder_hash": fitted.manifest["decoder_hash"],
            "vae_hash": features.manifest["vae_hash"],
            "image_size": features.manifest["image_size"],
            "channels": CHANNELS,
            "step": 1,
        },
    )
    return folder


def make_base(folder: Path, fitted: FittedSet, features: FeatureSet, **changes) -> Path:
    torch.manual_seed(0)
    settings = {
        "plane_channels": CHANNELS,
        "plane_size": LOW,
        "width": 8,
        "multipliers": (1, 2),
        "blocks": 1,
        "attention_sizes": (8, 4),
        "latent_patch": 4,
        "feature_patches": (8, 4, 2),
        "token_width": 16,
        **features.shapes(),
    }
    scheduler = make_scheduler("cosine_light", 1000, "epsilon")
    model = TriplaneUNet(**(settings | changes))
    return save(
        BaseTriplanePipeline(model, scheduler, PlaneNormalization.identity(CHANNELS)),
        folder,
        fitted,
        features,
    )


@pytest.fixture(scope="module")
def base_run(tmp_path_factory, tiny_fitted, tiny_features) -> Path:
    return make_base(tmp_path_factory.mktemp("base"), tiny_fitted, tiny_features)


@pytest.fixture(scope="module")
def upsampler_run(tmp_path_factory, tiny_fitted, tiny_features) -> Path:
    torch.manual_seed(0)
    model = TriplaneUpsampler(
        plane_channels=CHANNELS,
        plane_size=HIGH,
        low_res_size=LOW,
        width=8,
        multipliers=(1, 2),
        blocks=(1, 1),
        attention_sizes=(8,),
        latent_patch=4,
        feature_patches=(8, 4, 2),
        token_width=16,
        **tiny_features.shapes(),
    )
    pipeline = UpsampleTriplanePipeline(
        model, make_scheduler("sigmoid", 100, "sample"), PlaneNormalization.identity(CHANNELS)
    )
    folder = tmp_path_factory.mktemp("upsampler")
    return save(pipeline, folder, tiny_fitted, tiny_features)


@pytest.fixture
def config(tmp_path, base_run, tiny_fitted, tiny_features) -> SampleBaseConfig:
    return SampleBaseConfig(
        model=base_run,
        features=tiny_features.folder,
        triplanes=tiny_fitted.folder,
        output_dir=tmp_path / "low",
        steps=2,
        device="cpu",
    )


def test_chain_writes_triplane_folders(tmp_path, config, upsampler_run, tiny_features):
    sample_base(replace(config, batch_size=3))
    low = FittedSet.open(config.output_dir)
    assert low.names == tiny_features.names and low.shape == (3, CHANNELS, LOW, LOW)
    sample_upsampler(
        SampleUpsamplerConfig(
            model=upsampler_run / "snapshots" / "model",  # the model folder itself does as well
            features=config.features,
            triplanes=config.output_dir,
            output_dir=tmp_path / "high",
            steps=2,
            batch_size=2,
            device="cpu",
        )
    )
    high = FittedSet.open(tmp_path / "high")
    assert high.names == low.names and high.shape == (3, CHANNELS, HIGH, HIGH)
    planes = high.load("s0")
    assert planes.abs().max() <= 1 and planes.std() > 0.01
    assert high.decoder().config["channels"] == CHANNELS
    assert not torch.equal(planes, high.load("s1"))


def test_neither_batching_nor_interruption_changes_a_sample(config, tmp_path):
    whole = replace(config, batch_size=5)
    sample_base(whole)
    pieces = replace(config, output_dir=tmp_path / "pieces")
    sample_base(replace(pieces, start_idx=3))
    sample_base(replace(pieces, batch_size=2))
    first, second = FittedSet.open(whole.output_dir), FittedSet.open(pieces.output_dir)
    for name in first.names:
        # Stored in half precision: a batch's other kernels may tip one rounding.
        assert torch.allclose(first.load(name), second.load(name), atol=2e-3)


def test_finished_samples_are_kept(config):
    sample_base(config)
    done = FittedSet.open(config.output_dir)
    times = {name: done.path(name).stat().st_mtime_ns for name in done.names}
    before = done.load("s2")
    done.path("s2").unlink()
    sample_base(config)
    assert torch.equal(done.load("s2"), before)
    for name in done.names:
        assert (done.path(name).stat().st_mtime_ns == times[name]) == (name != "s2")


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_any_guidance_scale_and_both_samplers(config, scale):
    sample_base(replace(config, guidance_scale=scale, sampler="ddpm", end_idx=1))
    assert FittedSet.open(config.output_dir).names == ["held"]


def refuses(action, config, *words):
    with pytest.raises(UserError) as caught:
        action(config)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    assert not (config.output_dir / "triplanes").exists()


def test_settings_out_of_range_are_refused(config):
    refuses(sample_base, replace(config, eta=2.0), "eta is 2.0")
    refuses(sample_base, replace(config, batch_size=0), "batch_size is 0")
    refuses(
        sample_base, replace(config, steps=2000), "steps is 2000: this model has 1000 timesteps"
    )


def test_models_that_are_missing_or_damaged_are_refused(config, tmp_path, upsampler_run):
    refuses(sample_base, replace(config, model=tmp_path), "holds no model", str(tmp_path))
    refuses(
        sample_base,
        replace(config, model=upsampler_run),
        "UpsampleTriplanePipeline",
        "needs a BaseTriplanePipeline",
    )
    broken = tmp_path / "broken"
    source = config.model / "snapshots" / "model"
    for path in source.rglob("*"):
        if path.is_file():
            target = broken / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    index = broken / "model_index.json"
    parts = index.read_text()
    index.write_text(parts.replace('"normalization"', '"mean"'))
    refuses(sample_base, replace(config, model=broken), "by an earlier version", "train it again")
    index.write_text(parts)
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refuses(sample_base, replace(config, model=broken), str(broken), "is truncated")


def test_features_of_another_encoding_are_refused(config, tmp_path, tiny_fitted, tiny_features):
    shapes = tiny_features.shapes() | {"feature_sizes": (64, 32, 16), "latent_size": 16}
    other = make_base(tmp_path / "other", tiny_fitted, tiny_features, **shapes)
    refuses(sample_base, replace(config, model=other), "do not fit the model", "image size")
    manifest = tiny_features.manifest | {"vae_hash": "another"}
    fake = FeatureSet.create(tmp_path / "fake", manifest)
    fake.put("s0", tiny_features.load("s0"))
    refuses(sample_base, replace(config, features=fake.folder), "another VAE")
    refuses(sample_base, replace(config, features=tmp_path), "no portrait features")


def test_another_decoder_is_refused(config, tmp_path):
    torch.manual_seed(9)
    decoder = TriplaneDecoder(channels=CHANNELS, color_channels=6, hidden=16)
    other = FittedSet.create(tmp_path / "fitted", decoder, (3, CHANNELS, HIGH, HIGH))
    refuses(sample_base, replace(config, triplanes=other.folder), "another decoder")


def test_low_resolution_planes_of_another_size_are_refused(config, upsampler_run, tiny_fitted):
    refuses(
        sample_upsampler,
        SampleUpsamplerConfig(
            model=upsampler_run,
            features=config.features,
            triplanes=tiny_fitted.folder,  # full size
            output_dir=config.output_dir,
            steps=2,
            device="cpu",
        ),
        "[3, 8, 16, 16]",
        "[3, 8, 8, 8]",
    )


def test_a_portrait_without_features_is_refused(config, tmp_path, upsampler_run, tiny_features):
    sample_base(config)
    few = FeatureSet.create(tmp_path / "few", tiny_features.manifest)
    few.put("s0", tiny_features.load("s0"))
    refuses(
        sample_upsampler,
        SampleUpsamplerConfig(
            model=upsampler_run,
            features=few.folder,
            triplanes=config.output_dir,
            output_dir=tmp_path / "high",
            steps=2,
            device="cpu",
        ),
        "no features of held, s1, s2 and others",
    )


def test_a_model_that_was_trained_on_is_not_mixed_in(config, tmp_path, tiny_fitted, tiny_features):
    sample_base(replace(config, end_idx=1))
    run = make_base(tmp_path / "run", tiny_fitted, tiny_features)
    first = replace(config, model=run, output_dir=tmp_path / "again")
    sample_base(replace(first, end_idx=1))
    pipeline = BaseTriplanePipeline.from_pretrained(run / "snapshots" / "model")
    save(pipeline, run, tiny_fitted, tiny_features)  # moves the weights on
    with pytest.raises(UserError, match="other weights of the model"):
        sample_base(first)
    assert FittedSet.open(first.output_dir).names == ["held"]
