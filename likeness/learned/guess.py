"""The first guess of a portrait's coefficients: regression's and the networks', averaged.

Legend: N people, K coefficients.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from likeness.learned.encoder import (
    EncoderSettings,
    PortraitEncoder,
    encoder_pictures,
    encoders_of,
    encoders_state,
    state_shapes,
    train_encoder,
)
from likeness.learned.regression import Regression, fit_regression
from likeness.portrait.portrait import Portrait
from runtime.formats.tensor_files import load_tensors, save_tensors


@dataclass(frozen=True)
class FirstGuess:
    """What a portrait says about the coefficients before anything is rendered.

    Attributes:
        regression: on the portrait's pixels.
        encoders: networks, perhaps none.
        share: of the networks in the average, from 0 to 1.
        spread: [K] deviation of strangers' true coefficients from the guess.
    """

    regression: Regression
    encoders: tuple[PortraitEncoder, ...]
    share: float
    spread: Tensor

    def __call__(self, portrait: Portrait) -> Tensor:
        """Return the coefficients [K] expected of a portrait."""
        guess = self.regression(portrait)
        if not self.encoders:
            return guess
        picture = encoder_pictures(portrait)[None]
        seen = torch.stack([encoder.coefficients(picture)[0] for encoder in self.encoders])
        return guess + self.share * (seen.mean(dim=0) - guess)

    def without_networks(self) -> FirstGuess:
        """Return regression's guess alone."""
        return FirstGuess(self.regression, (), 0.0, self.regression.spread)

    def save(self, folder: Path | str) -> None:
        """Write ``regression.safetensors`` and, if there are networks, ``encoders.safetensors``."""
        folder = Path(folder)
        self.regression.save(folder / "regression.safetensors")
        if self.encoders:
            tensors = {"share": torch.tensor([self.share]), "spread": self.spread}
            save_tensors(folder / "encoders.safetensors", tensors | encoders_state(self.encoders))

    @classmethod
    def load(cls, folder: Path | str, even: int, odd: int, encoders: int) -> FirstGuess:
        """Read what :meth:`save` wrote; UserError if it is damaged or of other numbers."""
        folder = Path(folder)
        regression = Regression.load(folder / "regression.safetensors", even, odd)
        if not encoders:
            return cls(regression, (), 0.0, regression.spread)
        shapes = state_shapes(encoders, even, odd)
        expected = {"share": (1,), "spread": (even + odd,), **shapes}
        tensors, _ = load_tensors(folder / "encoders.safetensors", expected)
        networks = encoders_of({name: tensors[name] for name in shapes}, even, odd)
        return cls(regression, networks, float(tensors["share"]), tensors["spread"].float())


def fit_guess(
    pixels: Tensor,
    pictures: Tensor,
    coefficients: tuple[Tensor, Tensor],
    weights: Tensor,
    settings: EncoderSettings,
    kept: Path | None = None,
) -> FirstGuess:
    """Learn the first guess from people's portraits.

    Args:
        pixels: [N, …] of :func:`likeness.learned.regression.small_pixels`.
        pictures: [N, 4, S, S] of :func:`likeness.learned.encoder.encoder_pictures`.
        coefficients: even [N, Ke] and odd [N, Ko] ones of the same people.
        weights: [K], how much each coefficient's error counts.
        kept: folder where networks wait for the others, so that a training that was stopped
            goes on with the next; removed in the end.
    """
    even, odd = coefficients
    regression, missed = fit_regression(pixels, even, odd, weights)
    folds = min(settings.folds, len(pixels))
    if folds < 2:
        return FirstGuess(regression, (), 0.0, regression.spread)
    key = _key(settings, pictures, even, odd, weights)
    targets = torch.cat([even, odd], dim=1)
    encoders, unseen, by_few = [], torch.zeros_like(missed), torch.zeros_like(missed)
    fold = torch.arange(len(pictures)) % folds
    for index in range(folds):
        rest, own = fold != index, fold == index

        def train(rest: Tensor = rest, index: int = index) -> PortraitEncoder:
            return train_encoder(pictures[rest], even[rest], odd[rest], weights, settings, index)

        file = kept and kept / f"{key}-{index}.safetensors"
        encoder = _kept(file, train, even.shape[1], odd.shape[1])
        unseen[own] = targets[own] - encoder.coefficients(pictures[own])
        few, _ = fit_regression(pixels[rest], even[rest], odd[rest], weights)
        by_few[own] = targets[own] - few.coefficients(pixels[own])
        encoders.append(encoder)
    # Both have learnt from the same part of the people when they are weighed against each other.
    share = _best_share(by_few, unseen, weights)
    spread = (missed + share * (unseen - missed)).square().mean(dim=0).sqrt()
    if kept is not None:
        shutil.rmtree(kept, ignore_errors=True)
    return FirstGuess(regression, tuple(encoders), share, spread)


def _best_share(missed: Tensor, unseen: Tensor, weights: Tensor) -> float:
    """The share of ``unseen`` [N, K] that makes the weighted squares of an average least."""
    step = unseen - missed
    bend = float((step.square() * weights).sum())
    return min(max(-float((step * missed * weights).sum()) / max(bend, 1e-12), 0.0), 1.0)


def _kept(
    file: Path | None, train: Callable[[], PortraitEncoder], even: int, odd: int
) -> PortraitEncoder:
    """A network as its file has it, in 16 bits; trained first if there is no file."""
    if file is not None and file.is_file():
        state, _ = load_tensors(file, state_shapes(1, even, odd))
    else:
        state = encoders_state([train()])
        if file is not None:
            save_tensors(file, state)
    return encoders_of(state, even, odd)[0]


def _key(settings: EncoderSettings, *tensors: Tensor) -> str:
    """What a kept network depends on, as a short name."""
    digest = hashlib.sha256(repr(asdict(settings)).encode())
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
