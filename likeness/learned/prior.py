"""A linear model of fitted triplanes: mean, components and what they leave out.

Legend: N people, K components, P = 3 planes, C channels, H W plane size, E and O lengths of the
folded even and odd parts (:mod:`likeness.learned.mirror`).

A person is ``mean + Σ zₖ componentₖ + noise`` with z ~ N(0, 1) and independent noise of a known
deviation in every texel: probabilistic principal components (Tipping and Bishop 1999). Everyone's
mirror image counts as a person too. The components of such a set are either even or odd, so half
a component is all that is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from likeness.learned.mirror import mirror, split, unfold
from renderer.fitted_set import FittedSet
from runtime.described import Count, Described, Name, Size, read_described
from runtime.errors import UserError
from runtime.files import write_json
from runtime.formats.tensor_files import load_tensors, save_tensors
from runtime.progress import progress

Parts = tuple[Tensor, Tensor]
"""Even and odd, folded."""
FORMAT: Literal["triavatar-linear-prior"] = "triavatar-linear-prior"
HELD_OUT = 5
"""One person of so many is left out to measure what the components don't hold."""


class PriorFile(Described):
    """``config.json`` of a prior; counts of its even and odd components."""

    format: Literal["triavatar-linear-prior"]
    version: Literal[1]
    decoder_hash: Name
    shape: Annotated[list[Size], Field(min_length=4, max_length=4)]
    even: Count
    odd: Count
    people: Count


@dataclass(frozen=True)
class LinearPrior:
    """A linear model of people's triplanes under one decoder.

    Attributes:
        mean: [3, C, H, W], symmetric.
        even: [Ke, E] folded components of symmetric differences, scaled to unit coefficients.
        odd: [Ko, O] folded components of antisymmetric differences, scaled likewise.
        noise: [3, C, H, W], deviation of people left out from their best fit by the components.
        decoder_hash: the decoder the triplanes belong to.
        people: N, without mirror images.
    """

    mean: Tensor
    even: Tensor
    odd: Tensor
    noise: Tensor
    decoder_hash: str
    people: int

    @property
    def components(self) -> int:
        """K, the number of coefficients: the even ones first, then the odd ones."""
        return len(self.even) + len(self.odd)

    @property
    def _block(self) -> int:
        """Values that share a scale in the file: half a channel of a plane."""
        return self.shape[2] * self.shape[3] // 2

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(3, C, H, W) of a triplane."""
        p, c, h, w = self.mean.shape
        return p, c, h, w

    def planes(self, coefficients: Tensor) -> Tensor:
        """Return the triplane [3, C, H, W] of coefficients [K], unclamped; differentiable."""
        even, odd = coefficients.split([len(self.even), len(self.odd)])
        difference = unfold((even @ self.even)[None], (odd @ self.odd)[None], self.shape)
        return self.mean + difference[0]

    def coefficients(self, planes: Tensor) -> Tensor:
        """Return the coefficients [N, K] that come closest to triplanes [N, 3, C, H, W]."""
        pairs = zip(split(planes - self.mean), (self.even, self.odd), strict=True)
        return torch.cat([_coordinates(part, base) for part, base in pairs], dim=1)

    def variances(self) -> Tensor:
        """Return each component's share of people's squared differences, [K]."""
        sizes = torch.cat([_squares(self.even), _squares(self.odd)])
        return sizes / sizes.sum()

    def mirrored(self, coefficients: Tensor) -> Tensor:
        """Return the coefficients [..., K] of the mirror image."""
        sign = torch.ones(self.components)
        sign[len(self.even) :] = -1
        return coefficients * sign

    def first(self, count: int) -> LinearPrior:
        """Return the same model with its ``count`` components of largest variance."""
        even, odd = _largest([self.even, self.odd], count)
        return replace(self, even=even, odd=odd)

    def save(self, folder: Path | str) -> None:
        """Write ``prior.safetensors`` (components in 8 bits, the rest in 16), ``config.json``."""
        folder = Path(folder)
        tensors = {"mean": self.mean.half(), "noise": self.noise.half()}
        for name, part in (("even", self.even), ("odd", self.odd)):
            tensors[name], tensors[f"{name}_scale"] = _quantize(part, self._block)
        save_tensors(folder / "prior.safetensors", tensors, {"decoder_hash": self.decoder_hash})
        config = {
            "format": FORMAT,
            "version": 1,
            "decoder_hash": self.decoder_hash,
            "shape": list(self.shape),
            "even": len(self.even),
            "odd": len(self.odd),
            "people": self.people,
        }
        write_json(folder / "config.json", config)

    @classmethod
    def load(cls, folder: Path | str, decoder_hash: str | None = None) -> LinearPrior:
        """Read what :meth:`save` wrote.

        Args:
            decoder_hash: of the decoder it shall serve; not checked without.

        Raises:
            UserError: it is missing, damaged or belongs to another decoder.
        """
        folder = Path(folder)
        config = read_described(PriorFile, folder / "config.json")
        if decoder_hash is not None and config.decoder_hash != decoder_hash:
            raise UserError(
                f"the prior at {folder} was made for another decoder; give the decoder of its "
                "bundle, or make the prior again from triplanes of this one"
            )
        p, c, h, w = config.shape
        half, whole = c * h * w, (p - 1) * c * h * w
        block = max(h * w // 2, 1)
        tensors, _ = load_tensors(
            folder / "prior.safetensors",
            {
                "mean": (p, c, h, w),
                "noise": (p, c, h, w),
                "even": (config.even, whole),
                "even_scale": (config.even, whole // block),
                "odd": (config.odd, half),
                "odd_scale": (config.odd, half // block),
            },
            kinds={"even": ("I8",), "odd": ("I8",)},
        )
        even, odd = (_dequantize(tensors[n], tensors[f"{n}_scale"]) for n in ("even", "odd"))
        mean, noise = tensors["mean"].float(), tensors["noise"].float()
        return cls(mean, even, odd, noise, config.decoder_hash, config.people)


def fit_prior(fitted: FittedSet, names: Sequence[str], components: int = 256) -> LinearPrior:
    """Return the linear model of some people of a fitted set.

    Args:
        fitted: their triplanes.
        names: of the people to learn from.
        components: K at most.

    Raises:
        UserError: there are too few people, or a triplane is missing or damaged.
    """
    names = list(names)
    if len(names) < 3:
        raise UserError(f"{fitted.folder}: a prior needs 3 people or more, got {len(names)}")
    stack = torch.empty((len(names), *fitted.shape), dtype=torch.float16)
    for index, name in enumerate(progress(names, desc="prior", unit="person")):
        stack[index] = fitted.load(name)
    return prior_of(stack, components, str(fitted.manifest["decoder_hash"]))


def prior_of(stack: Tensor, components: int, decoder_hash: str) -> LinearPrior:
    """Return the linear model of triplanes [N, 3, C, H, W], any dtype; see :func:`fit_prior`."""
    mean = stack.float().mean(dim=0)
    mean = (mean + mirror(mean)) / 2
    parts = split(stack.float() - mean)
    noise = _noise(parts, components, stack.shape[1:]).sqrt()
    even, odd = _components(parts, components)
    return LinearPrior(mean, even, odd, noise, decoder_hash, len(stack))


def _components(parts: Parts, most: int) -> Parts:
    """Principal components of folded differences [N, E] and [N, O], scaled to unit coefficients.

    The eigenvectors of the N × N products give them, which is less work than E × E; only those
    of the ``most`` largest eigenvalues are multiplied out.
    """
    spectra = [torch.linalg.eigh((part @ part.T).double()) for part in parts]
    every = torch.cat([values for values, _ in spectra])
    least = max(float(every.sort(descending=True).values[:most][-1]), 1e-7 * float(every.max()))
    bases = []
    for part, (values, vectors) in zip(parts, spectra, strict=True):
        kept = (values >= max(least, 1e-30)).nonzero()[:, 0]
        bases.append(vectors[:, kept.flip(0)].float().T @ part / len(part) ** 0.5)
    return _largest((bases[0], bases[1]), most)


def _largest(bases: Parts, count: int) -> Parts:
    """The ``count`` components of largest variance among even and odd ones."""
    size = torch.cat([_squares(base) for base in bases])
    kept = torch.zeros(len(size), dtype=torch.bool)
    kept[size.argsort(descending=True, stable=True)[:count]] = True
    even, odd = kept.split([len(base) for base in bases])
    return bases[0][even], bases[1][odd]


def _squares(base: Tensor) -> Tensor:
    return base.square().sum(dim=1)


def _coordinates(part: Tensor, base: Tensor) -> Tensor:
    """Coefficients [N, K] of folded differences [N, E] in orthogonal components [K, E]."""
    return part @ (base / _squares(base)[:, None]).T


def _noise(parts: Parts, components: int, shape: Sequence[int]) -> Tensor:
    """Variance [3, C, H, W] of people left out about their best fit by the others' components."""
    left_out = torch.arange(len(parts[0])) % HELD_OUT == HELD_OUT - 1
    if not left_out.any():
        left_out[-1] = True
    bases = _components((parts[0][~left_out], parts[1][~left_out]), components)
    rests = [
        part[left_out] - _coordinates(part[left_out], base) @ base
        for part, base in zip(parts, bases, strict=True)
    ]
    even, odd = (rest.square().mean(dim=0) for rest in rests)
    # With mirror images both sides vary alike: by half the sum of the folded parts' variances.
    _, c, h, w = shape
    sides = ((even[: len(odd)] + odd) / 2).view(2, c, h, w // 2)
    middle = even[len(odd) :].view(1, c, h, w)
    return torch.cat([torch.cat([sides, sides.flip(-1)], dim=-1), middle])


def _quantize(part: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Folded components [K, E] in 8 bits, and a scale for every ``block`` values, [K, E/block]."""
    blocks = part.view(len(part), -1, block)
    scale = blocks.abs().amax(dim=2) / 127
    codes = (blocks / scale.clamp(min=1e-12)[..., None]).round()
    return codes.to(torch.int8).view_as(part), scale


def _dequantize(codes: Tensor, scale: Tensor) -> Tensor:
    """Inverse of :func:`_quantize`."""
    blocks = codes.float().view(*scale.shape, -1) if len(codes) else codes.float()
    return (blocks * scale[..., None]).view(codes.shape) if len(codes) else blocks
