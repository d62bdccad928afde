"""A first guess of the coefficients, straight from the portrait's pixels, and how sure it is.

Legend: N people, M portraits, F features, K coefficients (the first Ke of even components, the
other Ko of odd ones), S side in pixels.

Kernel ridge regression. Its features are the principal components of small portraits, unscaled:
how far two portraits are apart is how much their pixels differ. Their spectrum also says how
usual a portrait is, by which one that stands elsewhere is brought into place
(:mod:`likeness.portrait.placement`).

Everyone's mirror image is learnt from, too. The mirror swaps a portrait with its image, keeps even
coefficients and negates odd ones; so both kinds of coefficients have a problem of N equations of
their own, with the sum and the difference of the kernels to a portrait and to its image. What is
left out when a person is left out includes the image, as it should.
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
STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
FOLDS = 8
"""How usual strangers are is measured on two parts of so many."""
WIDTHS = (0.0, 0.7, 1.0, 1.4, 2.0)


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
        """Learn from small portraits [M, 4 · SIDE²]; rounded as it is stored, to 16 bits."""
        mean = pixels.mean(dim=0).half().float()
        _, values, basis = torch.linalg.svd(pixels - mean, full_matrices=False)
        count = min(features, int((values > 1e-4 * values[0]).sum()))
        left = values[count:].square().sum() / pixels.numel()
        deviation = values[:count] / len(pixels) ** 0.5
        basis = basis[:count].half().float()
        return cls(mean, basis, deviation, float(left.sqrt().clamp(min=0.01)))

    def features(self, pixels: Tensor) -> Tensor:
        """Features [M, F] of small portraits [M, 4 · SIDE²], of unit length squared on average."""
        length = self.deviation.square().sum().sqrt().clamp(min=1e-6)
        return (pixels - self.mean) @ self.basis.T / length

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
        anchors: [N, F] features of the portraits learnt from.
        even: [N, Ke] weights of the even coefficients.
        odd: [N, Ko] weights of the odd ones.
        width: of the Gaussian kernel, in units of the features' typical length; 0 for none.
        spread: [K] deviation of strangers' true coefficients from the guess.
        usual: surprise that nine of ten strangers stay under.
    """

    pixels: PixelModel
    anchors: Tensor
    even: Tensor
    odd: Tensor
    width: float
    spread: Tensor
    usual: float

    def __call__(self, portrait: Portrait) -> Tensor:
        """Return the coefficients [K] expected of a portrait."""
        return self.coefficients(small_pixels(portrait)[None])[0]

    def coefficients(self, pixels: Tensor) -> Tensor:
        """Return the coefficients [M, K] expected of small portraits [M, 4 · SIDE²]."""
        features = self.pixels.features(pixels)
        images = self.pixels.features(mirrored_pixels(pixels))
        both, apart = _folded_kernels(features, images, self.anchors, self.width)
        return torch.cat([both @ self.even, apart @ self.odd], dim=1)

    def surprise(self, portrait: Portrait) -> float:
        """Return how unusual a portrait is; 1 is what nine of ten stay under."""
        return float(self.pixels.surprise(small_pixels(portrait)[None])[0]) / self.usual

    def save(self, path: Path | str) -> None:
        """Write one safetensors file; what large weights would make errors of in 32 bits."""
        model = self.pixels
        halves = {"mean": model.mean.half(), "basis": model.basis.half()}
        wholes = {
            "anchors": self.anchors,
            "even": self.even,
            "odd": self.odd,
            "deviation": model.deviation,
            "spread": self.spread,
            "scalars": torch.tensor([model.noise, self.width, self.usual]),
        }
        save_tensors(path, halves | wholes)

    @classmethod
    def load(cls, path: Path | str, even: int | None = None, odd: int | None = None) -> Regression:
        """Read what :meth:`save` wrote; UserError if it is damaged or of other numbers Ke, Ko."""
        pixels, features, people = 4 * SIDE**2, None, None
        expected = {
            "mean": (pixels,),
            "basis": (features, pixels),
            "deviation": (features,),
            "anchors": (people, features),
            "even": (people, even),
            "odd": (people, odd),
            "spread": (None if even is None or odd is None else even + odd,),
            "scalars": (3,),
        }
        tensors, _ = load_tensors(path, expected)
        t = {name: tensor.float() for name, tensor in tensors.items()}
        noise, width, usual = t["scalars"].tolist()
        model = PixelModel(t["mean"], t["basis"], t["deviation"], noise)
        return cls(model, t["anchors"], t["even"], t["odd"], width, t["spread"], usual)


def _kernel(a: Tensor, b: Tensor, width: float) -> Tensor:
    """Products of features [M, F], [M', F]: linear, plus a Gaussian of their distance."""
    linear = a @ b.T
    if not width:
        return linear + 1
    squared = a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * linear
    return linear + torch.exp(-squared.clamp(min=0) / (2 * width**2)) + 1


def _folded_kernels(a: Tensor, images: Tensor, b: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """Sum and difference [M, M'] of the kernels to features b [M', F] of a and of its images."""
    straight, across = _kernel(a, b, width), _kernel(images, b, width)
    return straight + across, straight - across


def fit_regression(
    pixels: Tensor, even: Tensor, odd: Tensor, weights: Tensor | None = None
) -> tuple[Regression, Tensor]:
    """Learn coefficients from portraits; kernel and strengths are chosen by leaving people out.

    Args:
        pixels: [N, 4 · SIDE²] of :func:`small_pixels`.
        even: [N, Ke] coefficients of the same people that the mirror keeps.
        odd: [N, Ko] coefficients that it negates.
        weights: [K], how much each coefficient's error counts in the choice; alike without.

    Returns:
        The regression, and what it would miss of each person had it not seen that one, [N, K].
    """
    weights = torch.ones(even.shape[1] + odd.shape[1]) if weights is None else weights
    images = mirrored_pixels(pixels)
    both = torch.cat([pixels, images])
    model = PixelModel.of(both)
    features, others = (model.features(p).double() for p in (pixels, images))
    best: tuple[float, float, Tensor, Tensor, Tensor] | None = None
    for width in WIDTHS:
        kernels = _folded_kernels(features, others, features, width)
        (of_even, rest), (of_odd, other) = (
            _solved((kernel + kernel.T) / 2, targets.double())
            for kernel, targets in zip(kernels, (even, odd), strict=True)
        )
        missed = torch.cat([rest, other], dim=1)
        error = float((missed.square() * weights).sum())
        if best is None or error < best[0]:
            best = (error, width, of_even, of_odd, missed)
    assert best is not None
    _, width, of_even, of_odd, missed = best
    fold = torch.arange(len(pixels)) % FOLDS
    strange = torch.cat(
        [PixelModel.of(both[fold.repeat(2) != f]).surprise(pixels[fold == f]) for f in range(2)]
    )
    learnt = Regression(
        model,
        features.float(),
        of_even,
        of_odd,
        width,
        missed.square().mean(dim=0).sqrt(),
        float(strange.quantile(0.9)),
    )
    return learnt, missed


def _solved(kernel: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression with a kernel [N, N]; every target has the strength that suits it.

    What a portrait hardly tells wants a strong ridge, what it shows a weak one.

    Returns:
        Weights [N, K], and what is missed of each person by a regression without that person.
    """
    values, vectors = torch.linalg.eigh(kernel)
    rotated = vectors.T @ targets
    weights, missed = torch.zeros_like(targets), targets.clone()
    for strength in STRENGTHS:
        scale = 1 / (values.clamp(min=0) + strength)
        found = vectors @ (scale[:, None] * rotated)
        rest = found / (vectors.square() @ scale)[:, None]
        better = rest.square().sum(dim=0) < missed.square().sum(dim=0)
        weights, missed = torch.where(better, found, weights), torch.where(better, rest, missed)
    return weights.float(), missed.float()
