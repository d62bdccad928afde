"""From an ordinary photograph to a portrait framed as in a set.

Legend: S side of the portrait in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from captures.multiview import MultiViewSet
from captures.selection import SetConvention
from photos.backends import RembgMatting, load_detector
from photos.faces import Face
from photos.framing import Framing, measure_framing
from photos.geometry import apply, inverse, load_cv2, turn_and_scale, warp
from photos.matte import WHITE, cut_out, foreground_colours
from runtime.config import check_settings, own_first, setting
from runtime.errors import UserError

GREY = 140  # behind a picture that is cut out already, while its face is looked for
ENLARGED = 480  # shorter side of small pictures in which a face is looked for again
PATCH = 48  # side of the face's patch on which blur and light are measured
# Contrast of the patch's Laplacian to the patch's own. Sharp faces have 0.7 and more; blurred by a
# Gaussian of 2 % of the face's width 0.35, of 3 % 0.23.
MIN_SHARPNESS = 0.27
MIN_LIGHT = 25  # the brighter parts of the face (90th percentile), of 255
FRAMED = 0.05  # of the side: a head so near its place in the set stands there
OTHER_FACE = 0.4  # faces smaller than this part of the largest are passers-by
# Parts of the head that must lie in the picture, from the eyes in face widths: (x, y).
EXTENT = {"right": (0.36, 0.1), "left": (-0.36, 0.1), "bottom": (0.0, 0.6), "top": (0.0, -0.42)}


@own_first
@dataclass
class PortraitSettings(SetConvention):
    """Settings of making portraits from photographs."""

    size: int = setting(512, at_least=16, at_most=8192)
    """Side of the portrait in pixels."""
    root: Path | None = None
    """Multi-view set whose frontal pictures give the framing, in place of ``framing``."""
    detector: Literal["cascade", "yunet", "mediapipe"] = "cascade"
    """What finds the face; all but OpenCV's own cascade need a model file."""
    detector_model: Path | None = None
    """Model file of the detector: YuNet's .onnx or MediaPipe's face_landmarker.task."""
    matting: Literal["grabcut", "rembg"] = "grabcut"
    """What cuts the person out; rembg is a package that needs a model file."""
    rembg_model: str = "u2net_human_seg"
    """Name of rembg's model."""
    min_face: float = 64.0
    """Narrowest face that is taken, in pixels of the photograph."""
    largest: bool = False
    """Take the largest of several faces instead of refusing."""
    max_turn: float = setting(22.0, at_least=0, at_most=90)
    """Degrees that a head may be turned to the side, as far as the detector can tell; a model with
    likeness finds turns of 30° out, and `generate` takes them."""
    trim: bool = True
    """Cut the bust off where the set's busts end."""
    framing: Framing = field(default_factory=Framing)
    """Where the face stands in the portrait; by default as in the studio's sets."""


class PortraitMaker:
    """Turns photographs into portraits; see :class:`PortraitSettings`.

    Raises:
        UserError: a package, a model file or the set is missing.
    """

    def __init__(self, settings: PortraitSettings) -> None:
        check_settings(settings)
        self.settings = settings
        self.detect = load_detector(settings.detector, settings.detector_model)
        self.matting = RembgMatting(settings.rembg_model) if settings.matting == "rembg" else None
        self.framing = settings.framing
        if settings.root is not None:
            views = MultiViewSet(settings.root, settings.convention)
            self.framing = measure_framing(views, self.detect)

    def __call__(self, picture: np.ndarray, where: str = "the photograph") -> np.ndarray:
        """The portrait, RGBA uint8 [S, S, 4], straight alpha.

        Args:
            picture: upright photograph, uint8 [H, W, 3 | 4]; transparency is kept if it has any.
            where: how an error names it.

        Raises:
            UserError: the photograph doesn't show one face well enough, with the reason.
        """
        face, matrix = self._found(picture, where)
        self._check(_on_grey(picture), face, matrix, where)
        return self._cut(picture, matrix)

    def aligned(self, picture: np.ndarray, where: str) -> np.ndarray:
        """Return a picture that is cut out already, RGBA uint8 [H, W, 4], framed as in the set.

        One that is framed so stays as it is, and so does one in which no face is found: a drawing,
        a head seen from the side. What is not square is padded.
        """
        side = self.settings.size
        whole = padded_square(picture)
        try:
            face, matrix = self._found(picture, where)
        except UserError:
            return whole
        same = turn_and_scale((0.0, 0.0), 0.0, side / len(whole), (0.0, 0.0))
        corners = np.array([[0.2, 0.2], [0.8, 0.2], [0.2, 0.8], [0.8, 0.8]]) * len(whole)
        moves = np.abs(apply(matrix, corners) - apply(same, corners)).max() / side
        if whole is picture and (moves < FRAMED or face.turned):
            return picture
        return self._cut(picture, matrix)

    def _found(self, picture: np.ndarray, where: str) -> tuple[Face, np.ndarray]:
        """The only face, and the way [2, 3] from the picture's pixels to the portrait's."""
        face = self._only_face(_on_grey(picture), where)
        return face, self.framing.similarity(face, self.settings.size)

    def _cut(self, picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """Resample a picture and make what is not the person transparent: uint8 [S, S, 4]."""
        side = self.settings.size
        own_alpha = picture[..., 3] if has_transparency(picture) else None
        rgb = np.ascontiguousarray(picture[..., :3])
        portrait = warp(rgb, matrix, side, side)
        covered = _covered(rgb, matrix, side)
        if own_alpha is not None:
            portrait, alpha = _warp_cut_out(rgb, own_alpha, matrix, side)
        elif self.matting is not None:
            alpha = self.matting(portrait)
        else:
            alpha = cut_out(portrait, covered, self.framing)
        alpha = alpha * covered
        if self.settings.trim:
            alpha = alpha * _bust(self.framing, side)
        if own_alpha is None:
            portrait = foreground_colours(portrait, alpha)
        rgba = np.dstack([portrait, (alpha * 255 + 0.5).astype(np.uint8)])
        rgba[rgba[..., 3] == 0] = 0
        return rgba

    def _only_face(self, picture: np.ndarray, where: str) -> Face:
        faces = self.detect(picture)
        if not faces:
            raise UserError(self._too_small(picture, where) or _no_face(picture, where))
        others = [f for f in faces[1:] if f.width > OTHER_FACE * faces[0].width]
        if others and not self.settings.largest:
            raise UserError(
                f"{where} shows {len(others) + 1} faces; crop it to one person or ask for the "
                "largest face."
            )
        return faces[0]

    def _too_small(self, picture: np.ndarray, where: str) -> str | None:
        """Return why nothing was found, if a face shows once the picture is enlarged."""
        scale = ENLARGED / min(picture.shape[:2])
        if scale <= 1.5:
            return None
        cv2 = load_cv2()
        larger = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        faces = self.detect(larger)
        return self._narrow(faces[0].width / scale, where) if faces else None

    def _narrow(self, width: float, where: str) -> str:
        return (
            f"the face in {where} is too small: {width:.0f} pixels wide, at least "
            f"{self.settings.min_face:.0f} are needed; take a larger picture."
        )

    def _check(self, picture: np.ndarray, face: Face, matrix: np.ndarray, where: str) -> None:
        """Raise UserError if the face can't become a portrait."""
        if face.width < self.settings.min_face:
            raise UserError(self._narrow(face.width, where))
        if face.turned and face.turn > self.settings.max_turn:
            raise UserError(
                f"the face in {where} is turned too far to the side; take a picture that looks "
                "into the camera."
            )
        height, width = picture.shape[:2]
        unit = self.framing.face_width * self.settings.size
        eyes = np.array(self.framing.eyes) * self.settings.size
        for x, y in EXTENT.values():
            px, py = apply(inverse(matrix), eyes + unit * np.array([x, y]))
            out = {"left": -px, "right": px - width, "top": -py, "bottom": py - height}
            edge = max(out, key=lambda name: out[name])
            if out[edge] > 0:
                raise UserError(
                    f"the head in {where} is cut off at the {edge} edge; take a picture with the "
                    "whole head in it."
                )
        light, sharpness = measure_patch(picture, face)
        if light < MIN_LIGHT:
            raise UserError(
                f"the face in {where} is too dark (brightness {light:.0f} of 255, at least "
                f"{MIN_LIGHT} is needed); take a picture with more light."
            )
        if sharpness < MIN_SHARPNESS:
            raise UserError(
                f"the face in {where} is too blurred (sharpness {sharpness:.2f}, at least "
                f"{MIN_SHARPNESS} is needed); take a sharper or larger picture."
            )


def measure_patch(picture: np.ndarray, face: Face) -> tuple[float, float]:
    """(90th percentile of the grey level 0..255, sharpness) within a face."""
    cv2 = load_cv2()
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    middle = (PATCH / 2, PATCH / 2)
    to_patch = turn_and_scale(face.centre, face.roll, PATCH / face.width, middle)
    patch = warp(grey, to_patch, PATCH, PATCH).astype(np.float32)
    y, x = (np.mgrid[:PATCH, :PATCH] + 0.5) / PATCH - 0.5
    inside = (x / 0.38) ** 2 + (y / 0.48) ** 2 < 1
    detail = cv2.Laplacian(patch, cv2.CV_32F)[inside].std()
    contrast = max(float(patch[inside].std()), 1e-3)
    return float(np.percentile(patch[inside], 90)), float(detail) / contrast


def _no_face(picture: np.ndarray, where: str) -> str:
    """Return why nothing was found, as far as the picture tells."""
    if np.percentile(picture, 99) < MIN_LIGHT:
        return f"{where} is too dark to find a face in it; take a picture with more light."
    return (
        f"no face that looks into the camera is found in {where}; take a sharp picture from the "
        "front with the whole head in it."
    )


def _covered(picture: np.ndarray, matrix: np.ndarray, side: int) -> np.ndarray:
    """Bool [S, S]: which pixels of the portrait lie in the photograph."""
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    points = apply(inverse(matrix), np.stack([x, y], -1).astype(float))
    size = np.array(picture.shape[1::-1])
    return np.all((points >= -0.5) & (points <= size - 0.5), axis=-1)


def _on_grey(picture: np.ndarray) -> np.ndarray:
    """What a face is looked for in, uint8 [H, W, 3]: a cut-out picture before grey."""
    rgb = np.ascontiguousarray(picture[..., :3])
    if not has_transparency(picture):
        return rgb
    part = picture[..., 3:] / 255
    return (rgb * part + GREY * (1 - part) + 0.5).astype(np.uint8)


def padded_square(picture: np.ndarray) -> np.ndarray:
    """Return RGBA uint8 [H, W, 4] with transparency above or beside it, so that it is square.

    Shoulders stay at the lower edge.
    """
    height, width = picture.shape[:2]
    side = max(height, width)
    if height == width:
        return picture
    left = (side - width) // 2
    return np.pad(picture, ((side - height, 0), (left, side - width - left), (0, 0)))


def _warp_cut_out(
    rgb: np.ndarray, alpha: np.ndarray, matrix: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Resample a picture that is cut out already, with premultiplied alpha."""
    weight = alpha[..., None].astype(np.float32) / 255
    premultiplied = warp(np.dstack([rgb * weight / 255, weight]), matrix, side, side)
    soft = premultiplied[..., 3].clip(0, 1)
    colours = premultiplied[..., :3] / np.maximum(soft, 1e-4)[..., None]
    return (colours.clip(0, 1) * 255 + 0.5).astype(np.uint8), soft


def _bust(framing: Framing, side: int) -> np.ndarray:
    """Float32 [S, S]: 1 where the set's busts may be, antialiased."""
    centres = np.arange(side) + 0.5

    def below(limit: float) -> np.ndarray:
        return np.clip(limit * side - centres + 0.5, 0, 1)

    across = below(framing.right) * (1 - below(framing.left))
    return (below(framing.bottom)[:, None] * across[None]).astype(np.float32)


def has_transparency(picture: np.ndarray) -> bool:
    """Whether a picture, uint8 [H, W, 3 | 4], is cut out: a hundredth of it is transparent."""
    return picture.shape[2] == 4 and float((picture[..., 3] < 128).mean()) > 0.01


def is_photograph(picture: np.ndarray) -> bool:
    """Whether a picture, uint8 [H, W, 3 | 4], has a background: not cut out and not on white.

    White is what most of the upper border shows; shoulders may touch the rest.
    """
    if has_transparency(picture):
        return False
    half = len(picture) // 2
    border = np.concatenate(
        [picture[0, :, :3], picture[:half, 0, :3], picture[:half, -1, :3]], axis=0
    )
    return bool((border.min(-1) >= WHITE).mean() < 0.9)
