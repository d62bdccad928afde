"""The stage that samples low-resolution triplanes from portrait features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from captures.multiview import select_names
from diffusion.conditioning.feature_set import FeatureSet
from diffusion.conditioning.features import PortraitFeatures
from diffusion.sampling.pipelines import BaseTriplanePipeline
from diffusion.sampling.sample_set import (
    SampleSetConfig,
    check_decoder,
    check_features,
    check_steps,
    load_pipeline,
    sample_all,
)
from renderer.fitted_set import FittedSet
from runtime.devices import select_device


@dataclass(kw_only=True)
class SampleBaseConfig(SampleSetConfig):
    """Samples a low-resolution triplane for each portrait."""

    triplanes: Path
    """Fitted set the model was trained on; its decoder is copied beside the samples."""


def sample_base(config: SampleBaseConfig) -> None:
    """Samples the triplanes that aren't there yet.

    Raises:
        UserError: on inputs that are missing, damaged or don't belong together; what is done stays.
    """
    config.check()
    device = select_device(config.device)
    store, fitted = FeatureSet.open(config.features), FittedSet.open(config.triplanes)
    names = select_names(store.names, config.txt_file, config.start_idx, config.end_idx)
    pipeline, trained = load_pipeline(BaseTriplanePipeline, config.model, device)
    check_steps(config, pipeline)
    check_decoder(fitted, trained)
    check_features(store, names, pipeline, trained)

    def draw(batch: list[str], features: PortraitFeatures, seeds: list[int]) -> Tensor:
        return pipeline(
            features,
            sampler=config,
            seed=seeds,
        )

    sample_all(config, "sample-base", names, store, fitted, pipeline, trained, draw)
