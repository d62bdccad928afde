"""The upsampler's part of ``triavatar study conditioning``: augmentation and rendering loss.

All variants enlarge what the reference base model samples of held-out people, beside plain resizing
of the same planes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from captures.multiview import MultiViewSet
from diffusion.training.train_base import TrainBaseConfig
from diffusion.training.train_upsampler import (
    RenderLossConfig,
    TrainUpsamplerConfig,
    UpsamplerModelConfig,
)
from renderer.fitted_set import FittedSet

ENLARGED = "resizing"
ENLARGED_WITH_MEAN = "resizing, with the mean's detail"
DOWNSCALES = (2, 4)
"""Factors by which views are shrunk before patches are cut for the rendering loss."""
UPSAMPLER_VARIANTS: dict[str, dict[str, Any]] = {
    "upsampler": {},
    "upsampler, no augmentation": {"augment.probability": 0.0},
    "upsampler, no rendering loss": {"render.l1_weight": 0.0},
    "upsampler, regression": {"objective": "regression"},
    "upsampler, channel": {"normalization": "channel"},
}
"""Variant → what it changes of the upsampler's training."""


def upsampler_training(
    base: TrainBaseConfig, folder: Path, changes: dict[str, Any]
) -> TrainUpsamplerConfig:
    """The training of an upsampler after a base model's: same people, steps and measures.

    Args:
        base: the base model's training, done before.
        folder: run folder.
        changes: of a variant.
    """
    assert base.root is not None
    full = FittedSet.open(base.triplanes).shape[-1]
    size = min(full, 2 * base.plane_size)
    views = MultiViewSet(base.root)
    pixels = views.portrait(views.names[0]).shape[0]
    training = TrainUpsamplerConfig(
        output_dir=folder,
        triplanes=base.triplanes,
        features=base.features,
        root=base.root,
        base=base.output_dir,
        low_res_size=base.plane_size,
        plane_size=size,
        model=UpsamplerModelConfig(
            width=base.model.width // 2,
            multipliers=(1, 2),
            blocks=(1, 1),
            attention_sizes=(size // 2,),
            head_channels=16,
            latent_patch=2,
            token_width=base.model.token_width,
            positions=True,
        ),
        render=RenderLossConfig(
            patch_size=max(1, min(16, pixels // max(DOWNSCALES))),
            downscales=DOWNSCALES,
            downscale_probabilities=(0.5, 0.5),
            steps=96,
            grid=32,
        ),
        **{
            key: getattr(base, key)
            for key in (
                "seed",
                "steps",
                "batch_size",
                "learning_rate",
                "warmup_steps",
                "decay",
                "ema_decay",
                "device",
                "mixed_precision",
                "log_every",
                "save_every",
                "sample_every",
                "sample_pixels",
                "validation",
            )
        },
    )
    for key, value in changes.items():
        part, _, name = key.rpartition(".")
        if part:
            training = replace(
                training, **{part: replace(getattr(training, part), **{name: value})}
            )
        else:
            training = replace(training, **{name: value})
    return training
