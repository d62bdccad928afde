"""Small scenes whose pictures are known in closed form, for tests of any package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from captures.cameras import Cameras, orbit_cameras
from captures.conventions import CONVENTIONS
from captures.description import write_description
from captures.multiview import write_view
from renderer.decoder import TriplaneDecoder

# Centre and radius of opaque spheres, and their sRGB colours.
SPHERES = ((0.0, 0.1, 0.0, 0.45), (0.2, 0.45, 0.25, 0.2), (0.0, -0.6, 0.0, 0.25))
COLORS = ((0.9, 0.6, 0.4), (0.2, 0.3, 0.8), (0.3, 0.7, 0.3))


def ray_spheres(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest sphere hit by each ray [R]: its index, −1 for none, and the distance."""
    nearest = torch.full(origins.shape[:1], torch.inf, dtype=origins.dtype)
    which = torch.full(origins.shape[:1], -1)
    for index, (x, y, z, radius) in enumerate(SPHERES):
        offset = origins - torch.tensor([x, y, z], dtype=origins.dtype)
        b = (offset * directions).sum(-1)
        discriminant = b**2 - (offset.square().sum(-1) - radius**2)
        distance = -b - discriminant.clamp(min=0).sqrt()
        hit = (discriminant > 0) & (distance > 0) & (distance < nearest)
        nearest = torch.where(hit, distance, nearest)
        which = torch.where(hit, index, which)
    return which, nearest


def picture_of_spheres(cameras: Cameras, index: int, samples: int = 3) -> np.ndarray:
    """One view as RGBA uint8 [H, W, 4], straight alpha, ``samples``² rays a pixel."""
    size = cameras.width
    fine = cameras.scaled_to(size * samples, size * samples)
    which, _ = ray_spheres(*fine.image_rays(index))
    palette = torch.tensor([*COLORS, (0.0, 0.0, 0.0)])
    alpha = (which >= 0).float()[:, None]
    rgba = torch.cat([palette[which] * alpha, alpha], dim=-1)
    rgba = rgba.view(size, samples, size, samples, 4).mean(dim=(1, 3))
    color = rgba[..., :3] / rgba[..., 3:].clamp(min=1e-6)
    rgba = torch.cat([color.clamp(0, 1), rgba[..., 3:]], dim=-1)
    return (rgba * 255 + 0.5).byte().numpy()


def write_spheres(root: Path, *, subjects: int = 2, views: int = 6, size: int = 16) -> Path:
    """A multi-view set of the spheres; the last view and the last subject are held out."""
    convention = CONVENTIONS["rodinhd"]
    cameras = orbit_cameras(views, size=size)
    names = [f"subject_{index:03d}" for index in range(subjects)]
    for name in names:
        for view in range(views):
            picture = picture_of_spheres(cameras, view)
            write_view(root / name, view, picture, cameras, view, convention)
    write_description(
        root,
        convention,
        identities={"train": names[:-1], "test": names[-1:]},
        views={"train": list(range(views - 1)), "test": [views - 1]},
        objects={name: {"attributes": {"hair": "none"}} for name in names},
        provenance={"seed": 0},
        license="CC0-1.0",
    )
    return root


def random_decoder(
    channels: int = 6, color_channels: int = 4, hidden: int = 16, frequencies: int = 2
) -> TriplaneDecoder:
    """A decoder whose density varies strongly around 8 per world unit."""
    torch.manual_seed(7)
    decoder = TriplaneDecoder(channels, color_channels, hidden, frequencies)
    with torch.no_grad():
        decoder.density_out.weight[0] *= 4
        at_zero = decoder.density(torch.zeros(1, channels)).log()[0]
        decoder.density_out.bias[0] += 2.0 - at_zero
    return decoder


def constant_decoder(density: float, channels: int = 6, color_channels: int = 4) -> TriplaneDecoder:
    """Everywhere one density per world unit and the colour 0.5."""
    decoder = TriplaneDecoder(channels, color_channels, 8)
    with torch.no_grad():
        decoder.density_out.weight.zero_()
        decoder.density_out.bias.zero_()
        decoder.density_out.bias[0] = np.log(density)
        decoder.color_out.weight.zero_()
    return decoder


def random_rays(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rays from all around, most through the box, some past it."""
    generator = torch.Generator().manual_seed(seed)
    origins = torch.randn(count, 3, generator=generator)
    origins = 3.5 * origins / origins.norm(dim=-1, keepdim=True)
    target = torch.rand(count, 3, generator=generator) * 2.6 - 1.3
    return origins, torch.nn.functional.normalize(target - origins, dim=-1)


def relative_error(value: Tensor, expected: Tensor) -> float:
    """‖value − expected‖ / ‖expected‖."""
    return float((value.double() - expected.double()).norm() / expected.double().norm())
