"""What the two sampling stages share: loading, checking, and the resumable loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from diffusion.conditioning.feature_set import FeatureSet
from diffusion.conditioning.features import PortraitFeatures
from diffusion.sampling.pipelines import BaseTriplanePipeline, UpsampleTriplanePipeline
from diffusion.sampling.schedules import check_inference_steps
from renderer.fitted_set import FittedSet
from runtime.errors import UserError
from runtime.files import file_hash, read_json, write_json
from runtime.launch import process_count, process_index
from runtime.progress import progress
from runtime.runs import RunFolder
from runtime.seeds import seed_of

RESUMABLE = {"resumable": True}
Pipeline = TypeVar("Pipeline", BaseTriplanePipeline, UpsampleTriplanePipeline)


@dataclass(kw_only=True)
class SamplerConfig:
    """Settings that both sampling stages have."""

    model: Path
    """Run folder of the training, or its snapshots/model."""
    features: Path
    """Portrait features (output of encode-features)."""
    output_dir: Path
    """Run folder: triplanes/<name>.safetensors, manifest.json, decoder/; finished ones are kept."""
    txt_file: Path | None = field(default=None, metadata=RESUMABLE)
    """Text file with one name per line; all without it."""
    start_idx: int = field(default=0, metadata=RESUMABLE)
    """First name of the list to sample."""
    end_idx: int | None = field(default=None, metadata=RESUMABLE)
    """Name of the list to stop before; the end without it."""
    steps: int = 10
    """Sampler steps; they divide the timesteps the model was trained with."""
    sampler: Literal["ddim", "ddpm"] = "ddim"
    """ddim, or ddpm (ancestral, with the learned variance where the model has one)."""
    eta: float = 1.0
    """Noise of ddim's steps: 0 deterministic, 1 as much as ddpm."""
    batch_size: int = field(default=1, metadata=RESUMABLE)
    """Triplanes sampled at once; it changes the speed, not the samples."""
    seed: int = 0
    """Seed of the noise; each name has its own."""
    device: str = field(default="auto", metadata=RESUMABLE)
    """Device: auto, cpu, cuda or cuda:N."""


def check_sampler_config(config: SamplerConfig) -> None:
    """Refuses settings that can't be sampled with, by name."""
    for name in ("batch_size", "steps"):
        if getattr(config, name) < 1:
            raise UserError(f"{name} is {getattr(config, name)}: it must be at least 1")
    if not 0 <= config.eta <= 1:
        raise UserError(f"eta is {config.eta}: it must lie in 0..1")


def load_pipeline(
    kind: type[Pipeline], config: SamplerConfig, device: torch.device
) -> tuple[Pipeline, dict[str, object]]:
    """The trained pipeline with the wanted sampler, and what it says it was trained on.

    Raises:
        UserError: the folder is missing, damaged or holds another model; the steps don't divide the
            model's timesteps.
    """
    folder = config.model
    if (folder / "snapshots" / "model").is_dir():
        folder = folder / "snapshots" / "model"
    index = folder / "model_index.json"
    if not index.is_file():
        raise UserError(
            f"{config.model} holds no model (no model_index.json): give the run folder of the "
            f"training or its snapshots/model"
        )
    found = read_json(index).get("_class_name")
    if found != kind.__name__:
        raise UserError(f"{folder} holds a {found}, this stage needs a {kind.__name__}")
    try:
        pipeline = kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"the model in {folder} can't be read ({reason}): train it again") from None
    assert isinstance(pipeline, kind)
    pipeline.set_progress_bar_config(disable=True)
    if config.sampler == "ddpm":
        learned = bool(pipeline.unet.config.get("learned_variance", False))
        ancestral = DDPMScheduler.from_config(
            pipeline.scheduler.config,
            variance_type="learned_range" if learned else "fixed_small",
        )
        assert isinstance(ancestral, DDPMScheduler)
        pipeline.scheduler = ancestral
    try:
        check_inference_steps(pipeline.scheduler.config["num_train_timesteps"], config.steps)
    except ValueError as error:
        raise UserError(f"steps: {error}") from None
    pipeline.unet.eval()
    trained = read_json(folder / "training_data.json")
    weights = sorted((folder / "unet").glob("*.safetensors"))
    trained["model_hash"] = "-".join(file_hash(path)[:16] for path in weights)
    return pipeline.to(device), trained


def check_features(
    store: FeatureSet, names: Sequence[str], pipeline: Pipeline, trained: dict[str, object]
) -> None:
    """Refuses features that are missing or that the model was not trained with.

    Raises:
        UserError: names the folder and what differs.
    """
    missing = [name for name in names if name not in store]
    if missing:
        raise UserError(
            f"{store.folder} has no features of {', '.join(missing[:3])}"
            f"{' and others' if len(missing) > 3 else ''}: run `triavatar encode-features` for them"
        )
    try:
        pipeline.unet.portrait.check(store.load(names[0]))
    except ValueError as error:
        raise UserError(f"{store.folder}: {error}") from None
    if trained.get("vae_hash") != store.manifest["vae_hash"]:
        raise UserError(
            f"{store.folder} was encoded with another VAE than the model was trained with: encode "
            f"the portraits with that VAE"
        )


def check_decoder(fitted: FittedSet, trained: dict[str, object]) -> None:
    """Refuses a folder whose decoder is not the one of the model's training data.

    Raises:
        UserError: names the folder.
    """
    if trained.get("decoder_hash") != fitted.manifest["decoder_hash"]:
        raise UserError(
            f"{fitted.folder} belongs to another decoder than the model's training data: give the "
            f"fitted set it was trained on"
        )


def sample_all(
    config: SamplerConfig,
    stage: str,
    names: Sequence[str],
    store: FeatureSet,
    decoder_set: FittedSet,
    pipeline: Pipeline,
    trained: dict[str, object],
    draw: Callable[[list[str], PortraitFeatures, list[int]], Tensor],
) -> None:
    """Samples every name that is not there yet and writes it at once.

    Several processes share the names between them; a name's noise depends on seed and name alone.

    Args:
        config: settings.
        stage: `sample-base` or `sample-upsampler`.
        names: what to sample.
        store: portrait features.
        decoder_set: its decoder is copied beside the samples.
        pipeline: tells the triplanes' shape.
        trained: as `load_pipeline` gave it.
        draw: (names, their features, their seeds) → planes [B, P, C, H, H].
    """
    rank, world = process_index(), process_count()
    run = RunFolder(config.output_dir, config, stage, is_main=rank == 0)
    channels, size = pipeline.unet.plane_channels, pipeline.unet.plane_size
    out = FittedSet.create(config.output_dir, decoder_set.decoder(), (3, channels, size, size))
    _keep_model(run, trained)
    finished = set(out.names)
    mine = list(names)[rank::world]
    waiting = [name for name in mine if name not in finished]
    bar = progress(
        total=len(mine),
        initial=len(mine) - len(waiting),
        desc=stage,
        unit="triplane",
        disable=rank != 0,
    )
    with bar:
        for first in range(0, len(waiting), config.batch_size):
            batch = waiting[first : first + config.batch_size]
            features = PortraitFeatures.stack([store.load(name) for name in batch])
            seeds = [seed_of(config.seed, stage.removeprefix("sample-"), name) for name in batch]
            for name, planes in zip(batch, draw(batch, features, seeds), strict=True):
                if not torch.isfinite(planes).all():
                    raise UserError(
                        f"the model {config.model} gives NaN or infinite planes for {name}: it is "
                        f"damaged or was trained with too high a learning rate"
                    )
                out.put(name, planes)
                bar.update()
    run.log(f"{len(names)} triplanes in {out.folder} ({len(mine) - len(waiting)} were there)")


def _keep_model(run: RunFolder, trained: dict[str, object]) -> None:
    """Notes which weights the samples come from; refuses to go on with others."""
    path = run.path / "model.json"
    if path.exists() and read_json(path).get("model_hash") != trained["model_hash"]:
        raise UserError(
            f"{run.path} holds samples of other weights of the model (it was trained on since): "
            f"choose a new output_dir or delete that folder"
        )
    if run.is_main:
        write_json(path, {key: trained[key] for key in ("model_hash", "step") if key in trained})
