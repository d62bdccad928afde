"""All that likeness learns from people: prior, first guess and the camera of their portraits.

::

    <folder>/config.json              format, decoder hash, the portraits' camera
    <folder>/prior/                   see :class:`likeness.learned.prior.LinearPrior`
    <folder>/regression.safetensors   see :class:`likeness.learned.regression.Regression`
    <folder>/encoders.safetensors     see :class:`likeness.learned.guess.FirstGuess`
    <folder>/likeness.safetensors     curvature and space of :class:`LikenessModel`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from captures.cameras import Cameras
from captures.multiview import MultiViewSet
from likeness.learned.encoder import MOST_FOLDS, EncoderSettings, encoder_pictures
from likeness.learned.guess import FirstGuess, fit_guess
from likeness.learned.prior import LinearPrior, fit_prior
from likeness.learned.regression import Regression, mirrored_pixels, small_pixels
from likeness.portrait.portrait import Portrait
from renderer.fitted_set import FittedSet
from renderer.render import RenderSettings, build_occupancy
from runtime.described import Described, Matrix, Name, Number, read_described
from runtime.errors import UserError
from runtime.files import write_json
from runtime.formats.tensor_files import load_tensors, save_tensors
from runtime.progress import progress

FORMAT: Literal["triavatar-likeness"] = "triavatar-likeness"

SPACE_CELLS = 48


class PortraitCamera(Described):
    """Pose, and focal length and principal point in picture sides."""

    c2w: Matrix
    focal: Number
    principal_point: tuple[Number, Number]


class LikenessFile(Described):
    """``config.json``."""

    format: Literal["triavatar-likeness"]
    version: Literal[2]
    decoder_hash: Name
    encoders: Annotated[int, Field(ge=0, le=MOST_FOLDS)] = 0
    camera: PortraitCamera


@dataclass(frozen=True)
class LikenessModel:
    """The knowledge of people before one is seen.

    Attributes:
        prior: of their triplanes.
        guess: from a portrait to the prior's coefficients.
        curvature: [2, K, K], how the mean squared error of colour and of opacity bends along the
            coefficients: twice the products of the slopes of small portraits.
        space: [G, G, G] bool, cells of the box that any of the people fills, indexed (x, y, z).
        camera: one camera, that of the portraits learnt from.
    """

    prior: LinearPrior
    guess: FirstGuess
    curvature: Tensor
    space: Tensor
    camera: Cameras

    @property
    def regression(self) -> Regression:
        """The part of the guess that also tells how usual a portrait is."""
        return self.guess.regression

    def save(self, folder: Path | str) -> None:
        """Write the folder; ``config.json`` last."""
        folder = Path(folder)
        self.prior.save(folder / "prior")
        self.guess.save(folder)
        tensors = {"curvature": self.curvature, "space": self.space}
        save_tensors(folder / "likeness.safetensors", tensors)
        camera = self.camera
        config = {
            "format": FORMAT,
            "version": 2,
            "decoder_hash": self.prior.decoder_hash,
            "encoders": len(self.guess.encoders),
            "camera": {
                "c2w": camera.c2w[0].tolist(),
                "focal": float(camera.fx[0]) / camera.width,
                "principal_point": [
                    float(camera.cx[0]) / camera.width,
                    float(camera.cy[0]) / camera.height,
                ],
            },
        }
        write_json(folder / "config.json", config)

    @classmethod
    def load(cls, folder: Path | str, decoder_hash: str | None = None) -> LikenessModel:
        """Read what :meth:`save` wrote.

        Args:
            decoder_hash: of the decoder it shall serve; not checked without.

        Raises:
            UserError: it is missing, damaged or belongs to another decoder.
        """
        folder = Path(folder)
        config = read_described(LikenessFile, folder / "config.json")
        prior = LinearPrior.load(folder / "prior", decoder_hash)
        k = prior.components
        counts = len(prior.even), len(prior.odd)
        guess = FirstGuess.load(folder, *counts, config.encoders)
        expected = {"curvature": (2, k, k), "space": (None, None, None)}
        kinds = {"space": ("BOOL",)}
        tensors, _ = load_tensors(folder / "likeness.safetensors", expected, kinds=kinds)
        size, stated = 128, config.camera
        focal = torch.tensor([stated.focal * size])
        cx, cy = (torch.tensor([v * size]) for v in stated.principal_point)
        pose = torch.tensor([stated.c2w])
        camera = Cameras(pose, focal, focal, cx, cy, size, size)
        space = tensors["space"].bool()
        if len(set(space.shape)) > 1 or not space.any():
            raise UserError(
                f"{folder / 'likeness.safetensors'} holds space of shape {list(space.shape)} but a "
                "cube that people fill is expected; make it again."
            )
        return cls(prior, guess, tensors["curvature"].float(), space, camera)


def learn_likeness(
    views: MultiViewSet,
    fitted: FittedSet,
    names: Sequence[str],
    components: int = 256,
    encoder: EncoderSettings | None = None,
    kept: Path | None = None,
) -> LikenessModel:
    """Learn from people with fitted triplanes and their portraits.

    Args:
        views: their pictures; frame 0 is the portrait.
        fitted: their triplanes.
        names: who.
        components: of the prior, at most.
        encoder: how the networks of the first guess are trained.
        kept: folder where trained networks wait for the others; removed in the end.

    Raises:
        UserError: too few people, or files are missing or damaged.
    """
    prior = fit_prior(fitted, names, components)
    decoder = fitted.decoder()
    space = torch.zeros((SPACE_CELLS,) * 3, dtype=torch.bool)
    pixels, pictures, coefficients = [], [], []
    camera = views.load(names[0], views.frames(names[0])[:1]).cameras
    march, together = RenderSettings(grid=SPACE_CELLS), []
    for name in progress(names, desc="portraits", unit="person"):
        portrait = Portrait.of(views.portrait(name), camera)
        pixels.append(small_pixels(portrait))
        pictures.append(encoder_pictures(portrait))
        together.append(fitted.load(name))
        space |= build_occupancy(together[-1], decoder, march).occupied
        # The components are read once for many people.
        if len(together) == 64 or name == names[-1]:
            coefficients.append(prior.coefficients(torch.stack(together)))
            together.clear()
    known, seen = torch.cat(coefficients), torch.stack(pixels)
    even, odd = known.split([len(prior.even), len(prior.odd)], dim=1)
    encoder = encoder or EncoderSettings()
    guess = fit_guess(seen, torch.stack(pictures), (even, odd), prior.variances(), encoder, kept)
    curvature = _curvature(
        torch.cat([seen, mirrored_pixels(seen)]), torch.cat([known, prior.mirrored(known)])
    )
    return LikenessModel(prior, guess, curvature, space | space.flip(0), camera)


def _curvature(pixels: Tensor, coefficients: Tensor) -> Tensor:
    """[2, K, K] from small portraits [M, 4 · SIDE²] and coefficients [M, K] of unit deviation."""
    slopes = coefficients.T @ (pixels - pixels.mean(dim=0)) / len(pixels)
    third = slopes.shape[1] // 4
    color, opacity = slopes[:, : 3 * third], slopes[:, 3 * third :]
    return torch.stack([2 * part @ part.T / part.shape[1] for part in (color, opacity)])
