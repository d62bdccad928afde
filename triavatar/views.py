"""Rendering many views of one triplane.

Letters: N views, H W picture size, C channels.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from captures.cameras import Cameras, orbit_cameras
from renderer.decoder import TriplaneDecoder
from renderer.fitted_set import FittedSet, load_decoder
from renderer.render import RenderSettings, build_occupancy, render_image
from renderer.triplane import load_triplane
from runtime.errors import UserError


def on_device(decoder: TriplaneDecoder, device: torch.device) -> TriplaneDecoder:
    """Move the decoder, in place; returns it with its own type."""
    torch.nn.Module.to(decoder, device)
    return decoder


def render_views(
    planes: Tensor,
    decoder: TriplaneDecoder,
    cameras: Cameras,
    settings: RenderSettings,
    background: float = 1.0,
) -> np.ndarray:
    """Render every camera's view on a grey background.

    Args:
        planes: [3, C, H, W] on the device to render on.
        decoder: on the same device.
        cameras: N views.
        settings: how rays are marched.
        background: grey level, 0 black to 1 white.

    Returns:
        sRGB, uint8 [N, H, W, 3].
    """
    grid = build_occupancy(planes, decoder, settings)
    pictures = []
    for i in range(len(cameras)):
        view = render_image(planes, decoder, cameras[i], background, settings, grid)
        pictures.append((view.color * 255 + 0.5).to(torch.uint8).cpu().numpy())
    return np.stack(pictures)


def turntable_cameras(frames: int, size: int, elevation: float, distance: float) -> Cameras:
    """A full turn that starts in front of the face; elevation in degrees."""
    return orbit_cameras(frames, size=size, elevation_degrees=elevation, distance=distance)


def still_cameras(
    azimuths: tuple[float, ...], size: int, elevation: float, distance: float
) -> Cameras:
    """One view per azimuth in degrees, counted from the front (+z) towards +x."""
    # One orbit of one view per azimuth, joined.
    views = [
        orbit_cameras(
            1,
            size=size,
            elevation_degrees=elevation,
            distance=distance,
            azimuth_degrees=azimuth,
        )
        for azimuth in azimuths
    ]
    joined = {
        name: torch.cat([getattr(view, name) for view in views])
        for name in ("c2w", "fx", "fy", "cx", "cy")
    }
    return Cameras(width=size, height=size, **joined)


def framing_distance(fov_degrees: float = 28.84, extent: float = 1.1) -> float:
    """Distance from which a ball of radius ``extent`` fills the picture."""
    return extent / math.sin(math.radians(fov_degrees / 2))


def open_triplane(path: Path, decoder: Path | None) -> tuple[Tensor, TriplaneDecoder]:
    """A triplane file with the decoder it belongs to.

    Args:
        path: ``.safetensors`` or ``.npy``; inside a triplane folder its decoder is found there.
        decoder: decoder folder; needed for a file outside a triplane folder.

    Returns:
        Planes fp32 [3, C, H, W] and the decoder, both on the CPU.

    Raises:
        UserError: a file is missing or damaged, or the two don't fit each other.
    """
    folder = path.parent.parent
    if path.parent.name == "triplanes" and (folder / "manifest.json").is_file():
        fitted = FittedSet.open(folder)
        if path == fitted.path(path.stem):
            loaded = (
                load_decoder(decoder, fitted.manifest["decoder_hash"])
                if decoder is not None
                else fitted.decoder()
            )
            return fitted.load(path.stem), loaded
    if decoder is None:
        raise UserError(f"{path} lies in no triplane folder; name its decoder with --decoder.")
    planes, loaded = load_triplane(path), load_decoder(decoder)
    if planes.shape[1] != loaded.config["channels"]:
        raise UserError(
            f"{path} has {planes.shape[1]} channels but the decoder {decoder} takes "
            f"{loaded.config['channels']}; give the decoder the triplane was fitted with."
        )
    return planes, loaded
