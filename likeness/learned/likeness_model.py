"""All that likeness learns from people: prior, regression and the camera of their portraits.

::

    <folder>/config.json              format, decoder hash, the portraits' camera
    <folder>/prior/                   see :class:`likeness.learned.prior.LinearPrior`
    <folder>/regression.safetensors   see :class:`likeness.learned.regression.Regression`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from captures.cameras import Cameras
from captures.multiview import MultiViewSet
from likeness.learned.prior import LinearPrior, fit_prior
from likeness.learned.regression import Regression, fit_regression, small_pixels
from likeness.portrait.portrait import Portrait
from renderer.fitted_set import FittedSet
from runtime.errors import UserError
from runtime.files import read_json, write_json
from runtime.progress import progress

FORMAT = "triavatar-likeness"


@dataclass(frozen=True)
class LikenessModel:
    """The knowledge of people before one is seen.

    Attributes:
        prior: of their triplanes.
        regression: from a portrait to the prior's coefficients.
        camera: one camera, that of the portraits learnt from.
    """

    prior: LinearPrior
    regression: Regression
    camera: Cameras

    def save(self, folder: Path | str) -> None:
        """Write the folder; ``config.json`` last."""
        folder = Path(folder)
        self.prior.save(folder / "prior")
        self.regression.save(folder / "regression.safetensors")
        camera = self.camera
        config = {
            "format": FORMAT,
            "version": 1,
            "decoder_hash": self.prior.decoder_hash,
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
        config = read_json(folder / "config.json")
        if config.get("format") != FORMAT or config.get("version") != 1:
            raise UserError(f"{folder / 'config.json'} describes no {FORMAT} of version 1")
        prior = LinearPrior.load(folder / "prior", decoder_hash)
        regression = Regression.load(folder / "regression.safetensors")
        if regression.weights.shape[1] != prior.components:
            raise UserError(
                f"{folder}: the regression guesses {regression.weights.shape[1]} coefficients, the "
                f"prior has {prior.components}; they are of different models, copy both again"
            )
        size = 128
        stated = config["camera"]
        focal = torch.tensor([stated["focal"] * size])
        cx, cy = (torch.tensor([v * size]) for v in stated["principal_point"])
        camera = Cameras(torch.tensor([stated["c2w"]]), focal, focal, cx, cy, size, size)
        return cls(prior, regression, camera)


def learn_likeness(
    views: MultiViewSet, fitted: FittedSet, names: Sequence[str], components: int = 256
) -> LikenessModel:
    """Learn from people with fitted triplanes and their portraits.

    Args:
        views: their pictures; frame 0 is the portrait.
        fitted: their triplanes.
        names: who.
        components: of the prior, at most.

    Raises:
        UserError: too few people, or files are missing or damaged.
    """
    prior = fit_prior(fitted, names, components)
    pixels, coefficients = [], []
    camera = views.load(names[0], views.frames(names[0])[:1]).cameras
    for name in progress(names, desc="regression", unit="person"):
        rgba = views.portrait(name)
        pixels.append(small_pixels(Portrait.of(rgba, camera)))
        coefficients.append(prior.coefficients(fitted.load(name)[None])[0])
    known = torch.stack(coefficients)
    regression = fit_regression(torch.stack(pixels), known, prior.mirrored(known))
    return LikenessModel(prior, regression, camera)
