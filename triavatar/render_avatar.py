"""``triavatar render``: still views and a turntable of one triplane."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from captures.cameras import Cameras, orbit_cameras
from renderer.render import RenderSettings
from runtime.config import check_settings, setting
from runtime.errors import UserError
from triavatar.avatar import Avatar
from triavatar.avatar_files import find_triplanes
from triavatar.export.libraries import check_packages
from triavatar.rig.expression import Expression, parse_expression, read_clip
from triavatar.rig.head_model import find_head_model
from triavatar.rig.poser import Poser
from triavatar.sheets import save_picture
from triavatar.turntable import TurntableFormat, write_turn
from triavatar.views import still_cameras


@dataclass
class ViewConfig:
    """The views that are rendered of an avatar."""

    size: int = setting(512, at_least=8, at_most=8192)
    """Width and height of every picture in pixels."""
    azimuths: tuple[float, ...] = (-60.0, -30.0, 0.0, 30.0, 60.0, 180.0)
    """Still views, in degrees from the front towards the subject's left."""
    frames: int = setting(90, at_least=0, at_most=10**4)
    """Views of the turntable, a full turn; 0 for none."""
    fps: int = setting(30, at_least=1, at_most=1000)
    """Frames of the turntable per second."""
    turntable: tuple[TurntableFormat, ...] = ("mp4",)
    """Files of the turntable: mp4, html (one page that holds all frames and turns by dragging,
    without a network) and gif."""
    elevation: float = 5.0
    """Height of the camera above the horizon in degrees."""
    distance: float = setting(4.5, at_least=1.8)
    """From the camera to the centre of the box [-1, 1]³ in world units; nearer than 1.8 it would be
    inside."""
    background: float = 1.0
    """Grey level behind the subject, 0 black to 1 white."""
    alpha: bool = False
    """Write still views with a transparent background (RGBA, straight alpha)."""
    march: RenderSettings = field(default_factory=RenderSettings)
    """How rays are marched."""

    def check(self) -> None:
        """Refuse views of nothing (UserError)."""
        if not self.azimuths:
            raise UserError("views need at least one azimuth.")


@dataclass
class RenderConfig:
    """Settings of ``triavatar render``."""

    triplane: tuple[Path, ...]
    """Avatars: triplane files (.safetensors, or .npy with --decoder), triplane folders, folders of
    generated avatars."""
    output_dir: Path
    """Folder for view_*.png and turntable.*; of several avatars one folder each."""
    decoder: Path | None = None
    """Decoder folder, or one that holds it; found by itself for files inside a triplane folder."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """What to render."""
    expression: str | None = None
    """What the face does in all of them: ARKit blend shapes from 0 to 1, headYaw, headPitch,
    headRoll, gazeYaw and gazePitch in degrees, as in jawOpen=0.6,eyeBlinkLeft=1,headYaw=15."""
    clip: Path | None = None
    """CSV of ARKit weights, a frame a row, as face-capture apps record it: rendered from the first
    azimuth into clip.* in place of a turntable, with views.fps rows a second."""
    rig: Path | None = None
    """Head model that gives the face its expressions: folder that `triavatar train-rig` wrote, or
    a model with the part rig; the shipped one without."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


@dataclass(frozen=True)
class Motion:
    """What an avatar does in pictures: one expression in the stills, a clip beside them."""

    poser: Poser
    still: Expression
    clip: list[Expression]


def write_views(
    folder: Path, avatar: Avatar, views: ViewConfig, motion: Motion | None = None
) -> np.ndarray:
    """Write ``view_<azimuth>.png`` and ``turntable.*`` into ``folder``, made when missing.

    Args:
        motion: what the face does; nothing without. A clip is written as ``clip.*`` in place of
            the turntable.

    Returns:
        The still views, uint8 [N, H, W, 3], or [N, H, W, 4] with alpha.
    """
    how = {"background": views.background}
    cameras = still_cameras(views.azimuths, views.size, views.elevation, views.distance)

    def draw(cameras: Cameras, **more) -> np.ndarray:
        if motion is not None:
            return motion.poser.pictures(cameras, motion.still, **how, **more)
        return avatar.pictures(cameras, **how, settings=views.march, **more)

    stills = draw(cameras, alpha=views.alpha)
    for azimuth, picture in zip(views.azimuths, stills, strict=True):
        save_picture(folder / f"view_{azimuth:+04.0f}.png", picture)
    if motion is not None and motion.clip:
        frames = motion.poser.pictures(cameras[0], motion.clip, **how, desc="clip")
        for kind in views.turntable:
            write_turn(folder / f"clip.{kind}", frames, views.fps, avatar.name)
    elif views.frames and views.turntable:
        turn = orbit_cameras(
            views.frames,
            size=views.size,
            elevation_degrees=views.elevation,
            distance=views.distance,
        )
        frames = draw(turn, desc="turntable")
        for kind in views.turntable:
            write_turn(folder / f"turntable.{kind}", frames, views.fps, avatar.name)
    return stills


def render(config: RenderConfig) -> None:
    """Render avatars.

    Raises:
        UserError: a triplane or its decoder is missing, damaged, or they don't fit; an expression,
            a clip or the head model can't be read.
    """
    check_settings(config)
    found: dict[str, Path] = {}
    for path in config.triplane:
        for name, file in find_triplanes(path).items():
            if name in found:
                raise UserError(f"{file} and {found[name]} have the same name; rename one.")
            found[name] = file
    moves = config.expression is not None or config.clip is not None
    still = parse_expression(config.expression or "")
    clip = read_clip(config.clip) if config.clip is not None else []
    model = find_head_model(config.rig) if moves else None
    if model is not None:
        check_packages(("ply",))
    for name, file in found.items():
        folder = config.output_dir / name if len(found) > 1 else config.output_dir
        avatar = Avatar.load(file, decoder=config.decoder, device=config.device)
        motion = None
        if model is not None:
            poser = Poser.of(avatar.planes, avatar.decoder, model, config.views.march)
            motion = Motion(poser, still, clip)
        write_views(folder, avatar, config.views, motion)
        print(f"views of {file} are in {folder}")
