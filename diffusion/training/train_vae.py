"""Trains a small AutoencoderKL on a set's pictures, for those without pretrained weights.

Letters: B batch, S image size in pixels, s latent size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.utils.data import Dataset

from captures.multiview import MultiViewSet
from diffusion.conditioning.features import N_LEVELS, portrait_tensor
from diffusion.data.cache import Cache
from diffusion.data.order import ShuffledOrder
from diffusion.data.subjects import SubjectsConfig, chosen_subjects
from diffusion.training.loop import TrainingLoop
from diffusion.training.loop_config import LoopConfig
from renderer.metrics import Lpips
from runtime.config import check_settings, setting
from runtime.errors import UserError
from runtime.seeds import generator

PICTURES = 8
"""Pictures in a sample sheet and, at least, behind the scaling factor."""


@dataclass(kw_only=True)
class TrainVaeConfig(SubjectsConfig, LoopConfig):
    """Trains a small AutoencoderKL on the training views of a set's training identities."""

    root: Path = field()
    """Multi-view set."""
    image_size: int = 256
    """Side of the pictures in pixels."""
    block_out_channels: tuple[int, ...] = (64, 128, 256, 256)
    """Channels of the encoder's blocks; every block but the last halves the picture."""
    layers_per_block: int = 1
    """Residual blocks in each block."""
    norm_num_groups: int = 16
    """Groups of the group normalisation; divides every block's channels."""
    latent_channels: int = 4
    """Channels of the latent."""
    portrait_share: float = setting(0.5, at_least=0, at_most=1)
    """Share of samples that are portraits (frame 0); the others are any training view."""
    kl_weight: float = 1e-6
    """Weight of the latent's KL divergence (sum over the latent, in nats)."""
    perceptual_weight: float = 0.0
    """Weight of VGG-LPIPS (needs its weights)."""
    cache_gib: float = 4.0
    """Memory for decoded pictures, GiB each process."""


@dataclass
class PictureBatch:
    """Pictures [B, 3, S, S] in 0..1 on white and the posterior's noise [B, c, s, s]."""

    images: Tensor
    noise: Tensor

    def to(self, device: torch.device | str) -> PictureBatch:
        return replace(self, images=self.images.to(device), noise=self.noise.to(device))

    @staticmethod
    def join(items: list[PictureBatch]) -> PictureBatch:
        """Concatenates along B."""
        return PictureBatch(
            torch.cat([item.images for item in items]), torch.cat([item.noise for item in items])
        )


class PictureDataset(Dataset[PictureBatch]):
    """Training pictures by position in an endless list; portraits at their share of it."""

    def __init__(self, views: MultiViewSet, names: list[str], config: TrainVaeConfig) -> None:
        self.views, self.config = views, config
        frame = views.pictures.portrait_frame
        self.portraits = [name for name in names if frame in views.split_views("train", name)]
        if not self.portraits:
            raise UserError(f"{views.root} has no portrait (frame {frame}) to train on")
        self.frames = [(n, frame) for n in names for frame in views.split_views("train", n)]
        self.portrait_order = ShuffledOrder(len(self.portraits), config.seed, "vae", "portraits")
        self.frame_order = ShuffledOrder(len(self.frames), config.seed, "vae", "frames")
        limit = config.cache_gib * 2**30
        self.pictures = Cache(self._load, lambda picture: picture.numel() * 4, limit)

    def _load(self, key: str) -> Tensor:
        name, frame = key.rsplit("/", 1)
        image = self.views.load(name, [int(frame)]).images[0]
        return portrait_tensor(image, self.config.image_size, f"{self.views.root}/{name}")

    def picture(self, name: str, frame: int | None = None) -> Tensor:
        """[3, S, S] in 0..1, on white; the portrait without ``frame``."""
        frame = self.views.pictures.portrait_frame if frame is None else frame
        return self.pictures[f"{name}/{frame}"]

    def __getitem__(self, position: int) -> PictureBatch:
        random = generator(self.config.seed, "vae", position)
        if float(torch.rand((), generator=random)) < self.config.portrait_share:
            picture = self.picture(self.portraits[self.portrait_order[position]])
        else:
            picture = self.picture(*self.frames[self.frame_order[position]])
        side = self.config.image_size // 2 ** (len(self.config.block_out_channels) - 1)
        noise = torch.randn(1, self.config.latent_channels, side, side, generator=random)
        return PictureBatch(picture[None], noise)


class VaePass(nn.Module):
    """One training pass, so that a distributed wrapper sees the whole graph."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, S, S] in 0..1 and noise [B, c, s, s] → reconstruction (0..1) and KL [B]."""
        posterior: Any = self.vae.encode(images * 2 - 1, return_dict=False)[0]
        decoded: Any = self.vae.decode(posterior.mean + posterior.std * noise, return_dict=False)[0]
        return (decoded + 1) / 2, posterior.kl()


def build_vae(config: TrainVaeConfig) -> AutoencoderKL:
    """The untrained VAE; :class:`UserError` names the setting that doesn't fit."""
    widths = config.block_out_channels
    if len(widths) < N_LEVELS:
        raise UserError(f"block_out_channels {widths} needs at least {N_LEVELS} entries")
    if any(width % config.norm_num_groups for width in widths):
        raise UserError(
            f"norm_num_groups {config.norm_num_groups} must divide all of block_out_channels "
            f"{widths}"
        )
    reduction = 2 ** (len(widths) - 1)
    if config.image_size < reduction or config.image_size % reduction:
        raise UserError(f"image_size {config.image_size} is no multiple of {reduction}")
    settings: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "block_out_channels": tuple(widths),
        "layers_per_block": config.layers_per_block,
        "norm_num_groups": config.norm_num_groups,
        "latent_channels": config.latent_channels,
        "sample_size": config.image_size,
    }
    return AutoencoderKL(**settings)


def train_vae(config: TrainVaeConfig) -> None:
    """Trains to `steps`; snapshots/model is a folder that AutoencoderKL.from_pretrained loads.

    Raises:
        UserError: on settings or data that can't be trained with.
    """
    check_settings(config)
    views = MultiViewSet(config.root, config.convention)
    splits = views.identity_splits
    names = chosen_subjects(config, views.names, views.root, splits).train
    dataset = PictureDataset(views, names, config)
    torch.manual_seed(config.seed)
    loop = TrainingLoop(config, "train-vae", VaePass(build_vae(config)))
    perceptual = Lpips("vgg", loop.device) if config.perceptual_weight > 0 else None
    loop.run.log(f"{len(names)} subjects, {len(dataset.frames)} pictures")

    def losses(batch: PictureBatch) -> dict[str, Tensor]:
        reconstruction, kl = loop.model(batch.images, batch.noise)
        return vae_losses(reconstruction, kl, batch.images, config, perceptual)

    def samples() -> Tensor:
        pictures = [dataset.picture(name) for name in dataset.portraits[:PICTURES]]
        return torch.stack(pictures).to(loop.device)

    def save_model(folder: Path) -> None:
        vae = loop.bare_model.vae
        mean = vae.encode(samples() * 2 - 1).latent_dist.mean
        # Latents of about unit variance, as the latent diffusion papers scale them.
        vae.register_to_config(scaling_factor=1 / max(float(mean.std()), 1e-6))
        vae.save_pretrained(folder)

    def draw_samples(step: int) -> None:
        images = samples()
        decoded = loop.bare_model.vae(images * 2 - 1).sample
        sheet = torch.cat([images, (decoded + 1) / 2], dim=2).clamp(0, 1)
        pixels = torch.cat(list(sheet), dim=2).permute(1, 2, 0).cpu().numpy()
        loop.run.save_image(
            f"reconstructions_{step:08d}.png", (pixels * 255 + 0.5).astype(np.uint8)
        )

    loop.train(dataset, PictureBatch.join, losses, save_model, draw_samples)


def vae_losses(
    reconstruction: Tensor,
    kl: Tensor,
    images: Tensor,
    config: TrainVaeConfig,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Per-sample losses [B]: mean absolute and squared error, weighted KL, LPIPS when asked."""
    error = (reconstruction.float() - images).flatten(1)
    losses = {"l1": error.abs().mean(dim=1), "mse": error.square().mean(dim=1), "kl": kl.float()}
    losses["loss"] = losses["l1"] + losses["mse"] + config.kl_weight * losses["kl"]
    if perceptual is not None:
        a, b = (x.float().permute(0, 2, 3, 1) for x in (reconstruction, images))
        losses["lpips"] = perceptual(a, b)
        losses["loss"] = losses["loss"] + config.perceptual_weight * losses["lpips"]
    return losses
