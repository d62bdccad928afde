"""Portrait features: a VAE's latent and three maps of its encoder.

Letters: B batch, S image size in pixels, h, w size of a map.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from runtime.errors import UserError
from runtime.formats.models import load_model
from runtime.formats.tensor_files import load_tensors, save_tensors

N_LEVELS = 3
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass
class PortraitFeatures:
    """Multi-scale features of a batch of portraits.

    Attributes:
        latent: [B, 4, h, w], the VAE's latent times its scaling factor (about unit variance).
        levels: three maps of the VAE's encoder [B, c_i, h_i, w_i], finest first: 1, 1/2 and 1/4 of
            the image size (128, 256 and 512 channels for the SDXL VAE).
    """

    latent: Tensor
    levels: tuple[Tensor, Tensor, Tensor]

    def __len__(self) -> int:
        return self.latent.shape[0]

    def __getitem__(self, index: int | slice | Tensor) -> PortraitFeatures:
        """Takes portraits out of the batch; an int gives a batch of one."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"portrait {index} of a batch of {len(self)}")
            index = index % len(self)
            index = slice(index, index + 1)
        a, b, c = (level[index] for level in self.levels)
        return PortraitFeatures(self.latent[index], (a, b, c))

    @property
    def image_size(self) -> int:
        """Side of the encoded image in pixels (the finest map is as large as the image)."""
        return self.levels[0].shape[-1]

    @property
    def latent_channels(self) -> int:
        return self.latent.shape[1]

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> PortraitFeatures:
        """Moves and casts all tensors; from pinned memory to a GPU without waiting."""
        ahead = device is not None and torch.device(device).type == "cuda"
        return self._each(lambda x: x.to(device=device, dtype=dtype, non_blocking=ahead))

    def pin_memory(self) -> PortraitFeatures:
        """Copy into memory that a GPU reads by itself."""
        return self._each(lambda x: x.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> PortraitFeatures:
        a, b, c = map(change, self.levels)
        return PortraitFeatures(change(self.latent), (a, b, c))

    @staticmethod
    def stack(items: Sequence[PortraitFeatures]) -> PortraitFeatures:
        """Joins batches along B.

        Raises:
            UserError: when their maps differ in size or channels.
        """
        if not items:
            raise ValueError("no portrait features to stack")
        shapes = {tuple(t.shape[1:] for t in (item.latent, *item.levels)) for item in items}
        if len(shapes) > 1:
            sizes = sorted({item.image_size for item in items})
            raise UserError(
                f"portrait features of different shapes can't be put into one batch (image sizes "
                f"{sizes}): encode all portraits with the same VAE and image size"
            )
        a, b, c = (torch.cat([item.levels[i] for item in items]) for i in range(N_LEVELS))
        return PortraitFeatures(torch.cat([item.latent for item in items]), (a, b, c))

    def save(self, path: Path, metadata: dict[str, str] | None = None) -> None:
        """Writes one portrait's features (B = 1) as fp16 safetensors.

        Raises:
            UserError: when a value isn't finite in half precision.
        """
        if len(self) != 1:
            raise ValueError(f"one portrait a file, got a batch of {len(self)}")
        tensors = {"latent": self.latent[0]}
        tensors |= {f"level_{i}": level[0] for i, level in enumerate(self.levels)}
        half = {k: v.detach().to("cpu", torch.float16).contiguous() for k, v in tensors.items()}
        for key, value in half.items():
            if not torch.isfinite(value).all():
                raise UserError(
                    f"the features for {path} hold values that half precision can't ({key}): is "
                    f"the portrait or the VAE damaged?"
                )
        save_tensors(path, half, metadata)

    @staticmethod
    def load(path: Path, shapes: Sequence[Sequence[int]] | None = None) -> PortraitFeatures:
        """Reads what `save` wrote, as float32 with B = 1.

        Args:
            path: the file.
            shapes: of the latent and the levels, which they must have.

        Raises:
            UserError: the file is missing, damaged or holds other tensors.
        """
        keys = ["latent"] + [f"level_{i}" for i in range(N_LEVELS)]
        any_shape = [(None, None, None)] * len(keys)
        tensors, _ = load_tensors(path, dict(zip(keys, shapes or any_shape, strict=True)))
        values = [tensors[key].float()[None] for key in keys]
        return PortraitFeatures(values[0], (values[1], values[2], values[3]))


def load_vae(path_or_id: str) -> AutoencoderKL:
    """Loads a diffusers AutoencoderKL from a local folder or from the hub.

    Raises:
        UserError: says what to fetch and where to put it when the weights can't be had.
    """
    folder = Path(path_or_id)
    if folder.exists():
        # A diffusers pipeline's folder, a bundle, a run folder of train-vae.
        for inner in ("vae", "snapshots/model"):
            if not (folder / "config.json").exists() and (folder / inner / "config.json").exists():
                folder = folder / inner
        return load_model(AutoencoderKL, folder, "VAE", "train it again or give another folder")
    # Names such as runs/vae are folders that are not there, not repositories on the hub.
    if path_or_id.count("/") != 1 or not _HUB_ID.fullmatch(path_or_id) or folder.parent.exists():
        raise UserError(
            f"there is no VAE folder {path_or_id}: give a folder with config.json and "
            f"diffusion_pytorch_model.safetensors (see `triavatar train-vae`), or a hub id"
        )
    try:
        vae: Any = AutoencoderKL.from_pretrained(path_or_id, use_safetensors=True)
    except (OSError, ValueError, RuntimeError):
        raise UserError(
            f"the VAE {path_or_id} can't be fetched from the hub: download its "
            f"config.json and diffusion_pytorch_model.safetensors on a machine with network, put "
            f"both into one folder and give that folder as vae"
        ) from None
    return vae.eval().requires_grad_(False)


def vae_hash(vae: AutoencoderKL) -> str:
    """Hash of a VAE's weights, to tell which VAE a set of features came from (16 hex digits)."""
    digest = hashlib.sha256()
    for name, value in sorted(vae.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def portrait_tensor(image: np.ndarray, size: int, where: str = "portrait") -> Tensor:
    """Composites a portrait on white and resizes it (antialiased).

    Args:
        image: [H, W, 3 | 4] uint8; a fourth channel is straight alpha.
        size: wanted side in pixels.
        where: how an error names the image.

    Returns:
        [3, size, size] float32 in 0..1.

    Raises:
        UserError: when the image isn't a square RGB or RGBA picture of 8 bits.
    """
    if image.ndim != 3 or image.shape[2] not in (3, 4) or image.dtype != np.uint8:
        raise UserError(f"{where} is no 8-bit RGB or RGBA image (shape {image.shape})")
    height, width = image.shape[:2]
    if height != width:
        raise UserError(
            f"{where} is {width} x {height} pixels, not square: crop it to a square around the head"
        )
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    if pixels.shape[0] == 4:
        pixels = pixels[:3] * pixels[3:] + (1 - pixels[3:])
    if height != size:
        pixels = F.interpolate(
            pixels[None], (size, size), mode="bicubic", antialias=True, align_corners=False
        )[0]
    return pixels.clamp(0, 1)


class PortraitEncoder:
    """Turns portraits into `PortraitFeatures` with a frozen diffusers AutoencoderKL.

    The maps are what the encoder's first three down blocks hold before they halve the image. The
    latent goes through `quant_conv` where the VAE has one. Encoding runs in float32: the SDXL VAE
    overflows in half precision.

    Args:
        vae: folder, hub id (stabilityai/sdxl-vae) or an AutoencoderKL.
        image_size: side in pixels the VAE sees, a multiple of its reduction.
        device: where it runs.
    """

    def __init__(
        self,
        vae: str | Path | AutoencoderKL,
        image_size: int = 256,
        device: torch.device | str = "cpu",
    ) -> None:
        # Any: diffusers' types don't know the encoder's parts.
        loaded: Any = vae if isinstance(vae, AutoencoderKL) else load_vae(str(vae))
        blocks = len(loaded.config["block_out_channels"])
        if blocks < N_LEVELS:
            raise UserError(
                f"the VAE has {blocks} encoder blocks where the features need at least {N_LEVELS}"
            )
        reduction = 2 ** (blocks - 1)
        if image_size < reduction or image_size % reduction:
            raise UserError(f"image_size {image_size} is no multiple of the VAE's {reduction}")
        if loaded.dtype != torch.float32:
            loaded = loaded.to(dtype=torch.float32)
        self.vae = loaded.to(device=device).eval().requires_grad_(False)
        self.image_size = image_size
        self.device = torch.device(device)
        self.scaling_factor = float(loaded.config["scaling_factor"])
        if not self.scaling_factor > 0:
            raise UserError(f"the VAE's scaling_factor {self.scaling_factor} is not positive")

    def to(self, device: torch.device | str) -> PortraitEncoder:
        """Move the VAE."""
        torch.nn.Module.to(self.vae, device)
        self.device = torch.device(device)
        return self

    @torch.no_grad()
    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> PortraitFeatures:
        """Encodes portraits.

        Args:
            images: [B, 3, S, S] in 0..1, composited on white, S = image_size.
            generator: draws the latent from the Gaussian posterior; its mean without one.

        Returns:
            float32 features on the encoder's device.
        """
        expected = (3, self.image_size, self.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(f"expected images [B, {expected}], got {tuple(images.shape)}")
        if not torch.isfinite(images).all() or images.min() < 0 or images.max() > 1:
            raise ValueError("images must lie in 0..1")
        maps: list[Tensor] = []
        hooks = [
            block.resnets[-1].register_forward_hook(lambda _m, _i, out: maps.append(out))
            for block in self.vae.encoder.down_blocks[:N_LEVELS]
        ]
        try:
            pixels = images.to(self.device, torch.float32) * 2 - 1
            posterior: Any = self.vae.encode(pixels, return_dict=False)[0]
        finally:
            for hook in hooks:
                hook.remove()
        latent = posterior.mode() if generator is None else posterior.sample(generator)
        return PortraitFeatures(latent * self.scaling_factor, (maps[0], maps[1], maps[2]))

    def encode_portraits(self, portraits: Sequence[np.ndarray]) -> PortraitFeatures:
        """Encodes portraits as they are read from files: [H, W, 3 | 4] uint8, straight alpha."""
        tensors = [
            portrait_tensor(image, self.image_size, f"portrait {i}")
            for i, image in enumerate(portraits)
        ]
        return self.encode(torch.stack(tensors))
