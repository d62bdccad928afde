"""``triavatar faces``: avatars from several sides and in several expressions on one sheet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.config import check_settings, setting
from runtime.errors import UserError
from runtime.progress import progress
from triavatar.avatar import Avatar
from triavatar.export.command import list_avatars
from triavatar.export.libraries import check_packages
from triavatar.rig.expression import parse_expression
from triavatar.rig.head_model import find_head_model
from triavatar.rig.poser import Poser
from triavatar.sheets import Cell, Row, draw_sheet, save_picture
from triavatar.views import still_cameras

SIDES = (-75.0, -35.0, 0.0, 35.0, 75.0)
"""Azimuths, in degrees towards the subject's left."""
SMILE = "mouthSmileLeft=0.9,mouthSmileRight=0.9,cheekSquintLeft=0.5,cheekSquintRight=0.5"
EXPRESSIONS: Mapping[str, tuple[float, str]] = {
    "smiling": (12.0, SMILE),
    "talking": (12.0, "jawOpen=0.55,mouthFunnel=0.2"),
    "blinking": (12.0, "eyeBlinkLeft=1,eyeBlinkRight=1"),
    "surprised": (
        12.0,
        "browInnerUp=1,browOuterUpLeft=1,browOuterUpRight=1,eyeWideLeft=0.8,eyeWideRight=0.8,"
        "jawOpen=0.45,mouthFunnel=0.3",
    ),
    "looking aside": (-12.0, "headYaw=-18,headPitch=-6,headRoll=6,gazeYaw=-14"),
}
"""Azimuth, and what the face does."""
ELEVATION, DISTANCE = 3.0, 3.7


@dataclass
class FacesConfig:
    """Settings of ``triavatar faces``."""

    avatars: tuple[Path, ...]
    """Triplane files, triplane folders or folders of generated avatars."""
    output: Path = Path("faces.jpg")
    """Picture to write. One avatar: its sides in one row, its expressions in the next. Several: a
    row each, at rest and in the expressions."""
    n_avatars: int | None = setting(None, at_least=1)
    """Only the first so many of them."""
    size: int = setting(192, at_least=16, at_most=1024)
    """Width and height of each picture in pixels."""
    decoder: Path | None = None
    """Decoder folder; found by itself for files inside a triplane folder."""
    rig: Path | None = None
    """Head model that gives faces expressions: folder that `triavatar train-rig` wrote, or a model
    with the part rig; the shipped one without."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def check(self) -> None:
        """Refuse files that are no pictures (UserError)."""
        if self.output.suffix.lower() not in (".jpg", ".jpeg", ".png"):
            raise UserError(f"--output {self.output} must end with .jpg or .png.")


def faces(config: FacesConfig) -> None:
    """Draw the sheet.

    Raises:
        UserError: an avatar is missing, damaged or empty, or a package or the head model is.
    """
    check_settings(config)
    check_packages(("ply",))
    files = list(list_avatars(config.avatars).items())[: config.n_avatars]
    if not files:
        raise UserError("faces needs at least one avatar.")
    model = find_head_model(config.rig)
    rows = []
    for name, file in progress(files, desc="faces", unit="avatar"):
        avatar = Avatar.load(file, name=name, decoder=config.decoder, device=config.device)
        poser = Poser.of(avatar.planes, avatar.decoder, model)
        portrait = [] if avatar.portrait is None else [Cell(avatar.portrait, "portrait")]
        turns = SIDES if len(files) == 1 else (12.0,)
        sides = [_cell(poser, f"{turn:+.0f}°", turn, "", config.size) for turn in turns]
        moved = [
            _cell(poser, label, azimuth, face, config.size)
            for label, (azimuth, face) in EXPRESSIONS.items()
        ]
        if len(files) > 1:
            sides[0].label = "at rest"
            rows.append(Row("", [*portrait, *sides, *moved]))
        else:
            rows += [Row("", [*portrait, *sides]), Row("", [Cell() for _ in portrait] + moved)]
    save_picture(config.output, draw_sheet(rows, config.size))
    print(f"faces of {len(files)} avatars are in {config.output}")


def _cell(poser: Poser, label: str, azimuth: float, face: str, size: int) -> Cell:
    camera = still_cameras((azimuth,), size, ELEVATION, DISTANCE)
    picture: np.ndarray = poser.pictures(camera, parse_expression(face))[0]
    return Cell(picture, label)
