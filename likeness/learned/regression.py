"""A first guess of the coefficients, straight from the portrait's pixels, and how sure it is.

Legend: M portraits (mirror images included), F features, K coefficients, S side in pixels.

Kernel ridge regression. Its features are the principal components of small portraits; their
spectrum also says how usual a portrait is, by which one that stands elsewhere is brought into
place (:mod:`likeness.portrait.placement`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from likeness.portrait.portrait import Portrait
from runtime.formats.tensor_files import load_tensors, save_tensors

SIDE = 32
"""Side in pixels of the small portraits."""
FEATURES = 160
FOLDS = 8
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
WIDTHS = (0.0, 0.7, 1.0, 1.5)


def small_pixels(portrait: Portrait) -> Tensor:
    """The portrait as regression sees it: colour on white and opacity, [4 · SIDE²]."""
    small = portrait.resized(SIDE)
    return torch.cat([small.color.permute(2, 0, 1).flatten(), small.alpha.flatten()])


def mirrored_pixels(pixels: Tensor) -> Tensor:
    """Pixels [M, 4 · SIDE²] of the mirror images."""
    return pixels.view(-1, 4, SIDE, SIDE).flip(-1).flatten(1)


@dataclass(frozen=True)
class PixelModel:
    """A linear model of small portraits.

    Attributes:
        mean: [4 · SIDE²].
        basis: [F, 4 · SIDE²], orthonormal.
        deviation: [F] of the features.
        noise: deviation of a pixel from the model.
    """

    mean: Tensor
    basis: Tensor
    deviation: Tensor
    noise: float

    @classmethod
    def of(cls, pixels: Tensor, features: int = FEATURES) -> PixelModel:
        """Learn from small portraits [M, 4 · SIDE²]."""
        mean = pixels.mean(dim=0)
        _, values, basis = torch.linalg.svd(pixels - mean, full_matrices=False)
        count = min(features, int((values > 1e-4 * values[0]).sum()))
        left = values[count:].square().sum() / pixels.numel()
        deviation = values[:count] / len(pixels) ** 0.5
        return cls(mean, basis[:count], deviation, float(left.sqrt().clamp(min=0.01)))

    def features(self, pixels: Tensor) -> Tensor:
        """Features [M, F] of small portraits [M, 4 · SIDE²], of unit variance on average.

        Each is scaled by the root of its deviation: common ones count more, as they say more,
        rare ones not as little as pixels would have it.
        """
        scale = (self.deviation.square() + self.noise**2).sqrt()
        centred = (pixels - self.mean) @ self.basis.T
        return centred / scale.sqrt() / scale.mean().sqrt()

    def surprise(self, pixels: Tensor) -> Tensor:
        """How unusual small portraits [M, 4 · SIDE²] are: squared deviations per pixel, [M]."""
        centred = pixels - self.mean
        inside = centred @ self.basis.T
        rest = (centred.square().sum(dim=1) - inside.square().sum(dim=1)).clamp(min=0)
        variance = self.deviation.square() + self.noise**2
        return (inside.square() / variance).sum(dim=1) / len(self.mean) + rest / (
            self.noise**2 * len(self.mean)
        )


@dataclass(frozen=True)
class Regression:
    """Guesses coefficients from a portrait.

    Attributes:
        pixels: the model of small portraits.
        anchors: [M, F] features of the portraits learnt from.
        weights: [M, K].
        width: of the Gaussian kernel, in units of the features' typical distance; 0 for none.
        spread: [K] deviation of strangers' true coefficients from the guess.
        usual: surprise that nine of ten strangers stay under.
    """

    pixels: PixelModel
    anchors: Tensor
    weights: Tensor
    width: float
    spread: Tensor
    usual: float

    def __call__(self, portrait: Portrait) -> Tensor:
        """Return the coefficients [K] expected of a portrait."""
        features = self.pixels.features(small_pixels(portrait)[None])
        return (_kernel(features, self.anchors, self.width) @ self.weights)[0]

    def surprise(self, portrait: Portrait) -> float:
        """Return how unusual a portrait is; 1 is what nine of ten stay under."""
        return float(self.pixels.surprise(small_pixels(portrait)[None])[0]) / self.usual

    def save(self, path: Path | str) -> None:
        """Write one safetensors file, half precision."""
        model = self.pixels
        halves = {
            "mean": model.mean,
            "basis": model.basis,
            "anchors": self.anchors,
            "weights": self.weights,
        }
        wholes = {
            "deviation": model.deviation,
            "spread": self.spread,
            "scalars": torch.tensor([model.noise, self.width, self.usual]),
        }
        save_tensors(path, {k: v.half() for k, v in halves.items()} | wholes)

    @classmethod
    def load(cls, path: Path | str, components: int | None = None) -> Regression:
        """Read what :meth:`save` wrote; UserError if it is damaged or of another number K."""
        pixels, features = 4 * SIDE**2, None
        expected = {
            "mean": (pixels,),
            "basis": (features, pixels),
            "deviation": (features,),
            "anchors": (None, features),
            "weights": (None, components),
            "spread": (components,),
            "scalars": (3,),
        }
        tensors, _ = load_tensors(path, expected)
        t = {name: tensor.float() for name, tensor in tensors.items()}
        noise, width, usual = t["scalars"].tolist()
        model = PixelModel(t["mean"], t["basis"], t["deviation"], noise)
        return cls(model, t["anchors"], t["weights"], width, t["spread"], usual)


def _kernel(a: Tensor, b: Tensor, width: float) -> Tensor:
    """Products of features [M, F], [M', F]: linear, plus a Gaussian of their distance."""
    linear = a @ b.T / a.shape[1]
    if not width:
        return linear + 1
    distance = torch.cdist(a, b).square() / (2 * width**2 * a.shape[1])
    return linear + torch.exp(-distance) + 1


def fit_regression(
    pixels: Tensor, coefficients: Tensor, mirrored: Tensor, weights: Tensor | None = None
) -> Regression:
    """Learn coefficients from portraits; strength and kernel are chosen by cross-validation.

    Args:
        pixels: [N, 4 · SIDE²] of :func:`small_pixels`.
        coefficients: [N, K] of the same people.
        mirrored: [N, K] of their mirror images.
        weights: [K], how much each coefficient's error counts in the choice; alike without.
    """
    weights = torch.ones(coefficients.shape[1]) if weights is None else weights
    count = len(pixels)
    fold = torch.arange(count) % min(FOLDS, count)
    both = torch.cat([pixels, mirrored_pixels(pixels)])
    targets = torch.cat([coefficients, mirrored])
    model = PixelModel.of(both)
    features = model.features(both)
    best: tuple[float, float, float, Tensor] | None = None
    for width in WIDTHS:
        kernel = _kernel(features, features, width).double()
        for strength in STRENGTHS:
            guesses = _cross_validated(kernel, targets.double(), fold.repeat(2), strength)
            error = float(((guesses[:count] - coefficients).square() * weights).sum())
            if best is None or error < best[0]:
                best = (error, width, strength, guesses[:count])
    assert best is not None
    _, width, strength, guesses = best
    kernel = _kernel(features, features, width).double()
    solution = _solve(kernel, targets.double(), strength).float()
    spread = (guesses - coefficients).square().mean(dim=0).sqrt()
    strange = torch.cat(
        [PixelModel.of(both[fold.repeat(2) != f]).surprise(pixels[fold == f]) for f in range(2)]
    )
    return Regression(model, features, solution, width, spread, float(strange.quantile(0.9)))


def _solve(kernel: Tensor, targets: Tensor, strength: float) -> Tensor:
    ridge = strength * torch.eye(len(kernel), dtype=kernel.dtype)
    return torch.cholesky_solve(targets, torch.linalg.cholesky(kernel + ridge))


def _cross_validated(kernel: Tensor, targets: Tensor, fold: Tensor, strength: float) -> Tensor:
    """Guesses [M, K] for every portrait from those of other people."""
    guesses = torch.empty_like(targets)
    for f in range(int(fold.max()) + 1):
        out = fold == f
        weights = _solve(kernel[~out][:, ~out], targets[~out], strength)
        guesses[out] = kernel[out][:, ~out] @ weights
    return guesses.float()
