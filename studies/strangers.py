"""Measures of triplanes made for held-out people, for ``triavatar study conditioning``.

Whatever made them, they are compared at the size of the fits: smaller planes are enlarged first,
with the fine detail of the mean triplane, which all people share. Letters: m people, P planes,
C channels, h, H size of the planes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from captures.multiview import MultiViewSet
from diffusion.networks.upsampler import upsample_rollout
from diffusion.training.validation import HeldOutViews, PlaneComparison
from renderer.fitted_set import FittedSet
from renderer.metrics import psnr, ssim
from renderer.triplane import rollout, shrink_planes, unroll

MEASURES = {
    "plane_error": "plane error",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "spread": "spread",
    "variety": "variety",
    "copy_ratio": "copies",
    "seconds": "CPU s",
}
"""Measure → heading of its column."""


BOUNDS = (
    "fitted triplane (bound)",
    "fitted, shrunk and resized",
    "fitted, shrunk and resized with the mean's detail",
)
"""What no model can exceed: the people's own fits, whole, and as small as the models make them."""


def enlarged(planes: Tensor, size: int) -> Tensor:
    """Bicubic resizing of [m, P, C, h, h] to `size`, as the upsampler begins."""
    return planes if planes.shape[-1] == size else unroll(upsample_rollout(rollout(planes), size))


def rms(values: Tensor) -> float:
    """Root mean square."""
    return float(values.square().mean().sqrt())


class Strangers:
    """Held-out people, what is known of them, and what the training people have in common.

    Args:
        fitted: triplanes of training and held-out people.
        views: multi-view set; without one, renderings of the fitted triplanes stand in.
        train: training people.
        names: the held-out ones.
        count: views of each.
        pixels: side of a view.
    """

    def __init__(
        self,
        fitted: FittedSet,
        views: MultiViewSet | None,
        train: Sequence[str],
        names: Sequence[str],
        count: int,
        pixels: int,
    ) -> None:
        self.fitted, self.train, self.names = fitted, list(train), list(names)
        self.truth = torch.stack([fitted.load(name) for name in names])
        self.size = self.truth.shape[-1]
        self.shown = HeldOutViews(views, fitted.decoder(), count, pixels)

    @cached_property
    def mean(self) -> Tensor:
        """The training people's mean triplane, [P, C, H, H]."""
        total = torch.zeros(self.truth.shape[1:])
        for name in self.train:
            total += self.fitted.load(name)
        return total / len(self.train)

    @cached_property
    def _compare(self) -> PlaneComparison:
        return PlaneComparison(map(self.fitted.load, self.train))

    def resized(self, planes: Tensor) -> Tensor:
        """Planes [m, P, C, h, h] at the fits' size, with the mean triplane's fine detail."""
        if planes.shape[-1] == self.size:
            return planes
        small = shrink_planes(self.mean, planes.shape[-1])[None]
        return (enlarged(planes - small, self.size) + self.mean).clamp(-1, 1)

    def bound(self, name: str, size: int) -> Tensor:
        """The fitted planes themselves, or shrunk to `size` and resized; one of `BOUNDS`."""
        if name == BOUNDS[0]:
            return self.truth
        small = torch.stack([shrink_planes(planes, size) for planes in self.truth])
        return self.resized(small) if name == BOUNDS[2] else enlarged(small, self.size).clamp(-1, 1)

    def measures(
        self, planes: Tensor, again: Tensor | None = None, seconds: float | None = None
    ) -> dict[str, float]:
        """Compare planes made for all the people with the true ones and with true views.

        Args:
            planes: [m, P, C, h, h].
            again: others for the first portraits, drawn with other noise.
            seconds: CPU seconds that a person's planes took, if known.

        Returns:
            plane_error: root mean square error, as a share of the mean triplane's.
            psnr, ssim: of rendered views, means over people and views.
            spread: deviation between the planes of different people, as a share of the true one.
            copy_ratio: distance to the nearest training person, as a share of the true triplane's.
            variety: what two samples for one portrait differ by, as a share of what a sample and
                the truth differ by: 1 where the truth could be one of the samples, 0 where all
                samples are alike.
        """
        full = self.resized(planes)
        error = rms(full - self.truth)
        found = self._compare(full, self.truth)
        found["plane_error"] = error / rms(self.mean - self.truth)
        scores = [self._scores(*each) for each in zip(self.names, full, self.truth, strict=True)]
        found["psnr"], found["ssim"] = torch.stack(scores).mean(dim=0).tolist()
        if again is not None:
            first = full[: len(again)]
            off = rms(first - self.truth[: len(again)])
            found["variety"] = rms(self.resized(again) - first) / max(off, 1e-9)
        if seconds is not None:
            found["seconds"] = seconds
        return found

    def _scores(self, name: str, planes: Tensor, truth: Tensor) -> Tensor:
        """PSNR and SSIM of one person, [2], means over the views."""
        cameras, pictures = self.shown.of(name, truth)
        seen = self.shown.render(planes, cameras)
        return torch.stack([psnr(seen, pictures).mean(), ssim(seen, pictures).mean()])


def table(rows: dict[str, dict[str, list[float]]]) -> str:
    """Markdown: a row for each variant, means over the seeds, ± half their range."""
    shown = [key for key in MEASURES if any(key in row for row in rows.values())]
    lines = ["| variant | " + " | ".join(MEASURES[key] for key in shown) + " |"]
    lines.append("|---|" + "---:|" * len(shown))
    for name, row in rows.items():
        cells = []
        for key in shown:
            values = row.get(key)
            if not values:
                cells.append("–")
                continue
            mean = sum(values) / len(values)
            spread = (max(values) - min(values)) / 2
            cells.append(f"{mean:.3f}" + (f" ± {spread:.3f}" if len(values) > 1 else ""))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
