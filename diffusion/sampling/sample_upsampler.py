"""The stage that samples full-resolution triplanes from low-resolution ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from captures.multiview import select_names
from diffusion.conditioning.feature_set import FeatureSet
from diffusion.conditioning.features import PortraitFeatures
from diffusion.sampling.pipelines import UpsampleTriplanePipeline
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
from runtime.errors import UserError


@dataclass(kw_only=True)
class SampleUpsamplerConfig(SampleSetConfig):
    """Samples a full-resolution triplane for each low-resolution one."""

    triplanes: Path
    """Low-resolution triplanes (output of sample-base)."""


def sample_upsampler(config: SampleUpsamplerConfig) -> None:
    """Samples the triplanes that aren't there yet.

    Raises:
        UserError: on inputs that are missing, damaged or don't belong together; what is done stays.
    """
    config.check()
    device = select_device(config.device)
    store, low_res = FeatureSet.open(config.features), FittedSet.open(config.triplanes)
    names = select_names(low_res.names, config.txt_file, config.start_idx, config.end_idx)
    pipeline, trained = load_pipeline(UpsampleTriplanePipeline, config.model, device)
    check_steps(config, pipeline)
    check_decoder(low_res, trained)
    size = pipeline.unet.low_res_size
    expected = (3, pipeline.unet.plane_channels, size, size)
    if low_res.shape != expected:
        raise UserError(
            f"{low_res.folder} holds triplanes {list(low_res.shape)}, the upsampler takes "
            f"{list(expected)}: give the output of sample-base with the base model of the same size"
        )
    check_features(store, names, pipeline, trained)

    def draw(batch: list[str], features: PortraitFeatures, seeds: list[int]) -> Tensor:
        planes = torch.stack([low_res.load(name) for name in batch])
        return pipeline(
            planes,
            features,
            sampler=config,
            seed=seeds,
        )

    sample_all(config, "sample-upsampler", names, store, low_res, pipeline, trained, draw)
