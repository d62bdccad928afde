"""Shared by the two sampling stages: loading, checking, and the resumable loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from captures.selection import ResumableNames
from diffusion.conditioning.feature_set import FeatureSet
from diffusion.conditioning.features import PortraitFeatures
from diffusion.sampling.model_files import Pipeline, load_pipeline
from diffusion.sampling.pipelines import BaseTriplanePipeline, UpsampleTriplanePipeline
from diffusion.sampling.solvers import SamplerConfig, chosen_timesteps
from renderer.fitted_set import FittedSet
from runtime.config import check_settings, own_first, setting
from runtime.described import Described, Name, read_described
from runtime.devices import select_device
from runtime.errors import UserError
from runtime.files import write_json
from runtime.launch import is_main_process
from runtime.progress import counted
from runtime.runs import RunFolder
from runtime.seeds import seed_of
from runtime.spread import Job, SpreadSettings, Turns, spread


@own_first
@dataclass(kw_only=True)
class SampleSetConfig(SamplerConfig, SpreadSettings, ResumableNames):
    """Settings that both sampling stages have."""

    model: Path
    """Run folder of the training, or a model's folder in its snapshots."""
    features: Path
    """Portrait features (output of encode-features)."""
    triplanes: Path
    """Triplane folder that the stage starts from; its decoder is copied beside the samples."""
    output_dir: Path
    """Run folder: triplanes/<name>.safetensors, manifest.json, decoder/; finished ones are kept."""
    batch_size: int = setting(1, resumable=True, at_least=1, at_most=2**16)
    """Triplanes sampled at once; it changes the speed, not the samples."""
    seed: int = 0
    """Seed of the noise; each name has its own."""
    device: str = setting("auto", resumable=True)
    """Device: auto, cpu, cuda or cuda:N."""

    def check(self) -> None:
        """Refuse settings that contradict each other."""
        SamplerConfig.check(self)
        SpreadSettings.check(self)


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
    factor = store.manifest["scaling_factor"]
    if trained.get("vae_hash") != store.manifest["vae_hash"] or (
        trained.get("scaling_factor") not in (None, factor)
    ):
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


class TriplaneSampler:
    """Samples triplanes of names; the two stages say what is drawn.

    Args:
        config: settings.

    Raises:
        UserError: inputs are missing, damaged or don't belong together.

    Attributes:
        store: portrait features.
        triplanes: what the stage starts from.
        pipeline: the model.
        trained: what it says it was trained on.
    """

    kind: type[BaseTriplanePipeline] | type[UpsampleTriplanePipeline]
    key: str
    """Names the noise's stream."""

    def __init__(self, config: SampleSetConfig):
        self.config = config
        self.store, self.triplanes = (
            FeatureSet.open(config.features),
            FittedSet.open(config.triplanes),
        )
        device = select_device(config.device)
        self.pipeline, self.trained = load_pipeline(self.kind, config.model, device)
        check_steps(config, self.pipeline)
        check_decoder(self.triplanes, self.trained)

    def names(self) -> list[str]:
        """All names there are."""
        raise NotImplementedError

    def draw(self, names: list[str], features: PortraitFeatures, seeds: list[int]) -> Tensor:
        """Sample planes [B, P, C, H, H] of B names."""
        raise NotImplementedError

    def __call__(self, names: list[str], turns: Turns) -> None:
        """Sample and write; a name's noise depends on seed and name alone."""
        config, out = self.config, FittedSet.open(self.config.output_dir)
        features = PortraitFeatures.stack([self.store.load(name) for name in names])
        seeds = [seed_of(config.seed, self.key, name) for name in names]
        for name, planes in zip(names, self.draw(names, features, seeds), strict=True):
            if not torch.isfinite(planes).all():
                raise UserError(
                    f"the model {config.model} gives NaN or infinite planes for {name}: it is "
                    f"damaged or was trained with too high a learning rate"
                )
            out.put(name, planes)


def sample_set(config: SampleSetConfig, kind: type[TriplaneSampler], stage: str) -> None:
    """Sample every name that is not there yet.

    Args:
        config: settings.
        kind: what samples, in this process or in several.
        stage: "sample-base" or "sample-upsampler".

    Raises:
        UserError: on inputs that are missing, damaged or don't belong together; what is done stays.
        PartialFailure: some could not be sampled; the rest are done.
    """
    check_settings(config)
    sampler = kind(config if config.here else replace(config, device="cpu"))
    names = config.chosen(sampler.names())
    check_features(sampler.store, names, sampler.pipeline, sampler.trained)
    run = RunFolder(config.output_dir, config, stage, is_main_process(), shared=True)
    unet = sampler.pipeline.unet
    out = FittedSet.create(
        config.output_dir,
        sampler.triplanes.decoder(),
        (3, unet.plane_channels, unet.plane_size, unet.plane_size),
        identities=sampler.triplanes.identities,
    )
    _keep_model(run, sampler.trained)
    job = Job(
        stage,
        kind,
        config,
        out.__contains__,
        run.state / "turns",
        batch=config.batch_size,
        uses_gpu=config.device != "cpu",
        unit="triplane",
    )
    report = spread(job, names, config, begun=sampler)
    run.log(f"{counted(len(report.names) - len(report.failures), 'triplane')} in {out.folder}")
    report.raise_failures()


class KeptModel(Described):
    """``model.json``: whose samples a folder holds."""

    model_hash: Name


def _keep_model(run: RunFolder, trained: dict[str, object]) -> None:
    """Notes which weights the samples come from; refuses to go on with others."""
    path = run.path / "model.json"
    if path.exists() and read_described(KeptModel, path).model_hash != trained["model_hash"]:
        raise UserError(
            f"{run.path} holds samples of other weights of the model (it was trained on since): "
            f"choose a new output_dir or delete that folder"
        )
    if run.is_main:
        write_json(path, {key: trained[key] for key in ("model_hash", "step") if key in trained})
