"""What the two sampling stages share: loading, checking, and the resumable loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from diffusion.conditioning.feature_set import FeatureSet
from diffusion.conditioning.features import PortraitFeatures
from diffusion.sampling.pipelines import BaseTriplanePipeline, UpsampleTriplanePipeline
from diffusion.sampling.solvers import SamplerConfig, chosen_timesteps
from renderer.fitted_set import FittedSet
from runtime.config import setting
from runtime.errors import UserError
from runtime.files import file_hash, read_json, write_json
from runtime.launch import process_count, process_index
from runtime.progress import progress
from runtime.runs import RunFolder
from runtime.seeds import seed_of

RESUMABLE = {"resumable": True}
Pipeline = TypeVar("Pipeline", BaseTriplanePipeline, UpsampleTriplanePipeline)


@dataclass(kw_only=True)
class SampleSetConfig(SamplerConfig):
    """Settings that both sampling stages have."""

    model: Path
    """Run folder of the training, or a model's folder in its snapshots."""
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
    batch_size: int = setting(1, resumable=True, at_least=1)
    """Triplanes sampled at once; it changes the speed, not the samples."""
    seed: int = 0
    """Seed of the noise; each name has its own."""
    device: str = field(default="auto", metadata=RESUMABLE)
    """Device: auto, cpu, cuda or cuda:N."""


def open_model(path: Path, kind: type[DiffusionPipeline]) -> tuple[Path, dict[str, object]]:
    """Find a trained model: its folder, and what it says it was trained on.

    Args:
        path: a run folder (its best snapshot if there is one, else its last), or a model's folder.
        kind: the pipeline it must hold.

    Raises:
        UserError: there is none, or another one.
    """
    snapshots = [path / "snapshots" / name for name in ("best", "model")]
    folder = next((each for each in snapshots if each.is_dir()), path)
    index = folder / "model_index.json"
    if not index.is_file():
        raise UserError(
            f"{path} holds no model (no model_index.json): give the run folder of the training or "
            f"its snapshots/model"
        )
    parts = read_json(index)
    if parts.get("_class_name") != kind.__name__:
        raise UserError(
            f"{folder} holds a {parts.get('_class_name')}, this stage needs a {kind.__name__}"
        )
    if "normalization" not in parts:
        raise UserError(
            f"{folder} was trained by an earlier version, whose models this one can't read: train "
            f"it again"
        )
    return folder, read_json(folder / "training_data.json")


def load_pipeline(
    kind: type[Pipeline], path: Path, device: torch.device
) -> tuple[Pipeline, dict[str, object]]:
    """The trained pipeline, and what it says it was trained on.

    Raises:
        UserError: the folder is missing, damaged or holds another model.
    """
    folder, trained = open_model(path, kind)
    try:
        pipeline = kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"the model in {folder} can't be read ({reason}): train it again") from None
    assert isinstance(pipeline, kind)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet.eval()
    weights = sorted((folder / "unet").glob("*.safetensors"))
    trained["model_hash"] = "-".join(file_hash(each)[:16] for each in weights)
    return pipeline.to(device), trained


def check_steps(config: SamplerConfig, pipeline: Pipeline) -> None:
    """Refuse more sampling steps than the model has timesteps.

    Raises:
        UserError: names both numbers.
    """
    if pipeline.scheduler is not None:
        chosen_timesteps(pipeline.scheduler.alphas_cumprod, config.steps, config.spacing)


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
    config: SampleSetConfig,
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
    shape, split = (3, channels, size, size), decoder_set.identities
    out = FittedSet.create(config.output_dir, decoder_set.decoder(), shape, identities=split)
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
