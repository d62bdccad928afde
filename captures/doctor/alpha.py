"""Checks of the alpha channel and the colours under it, which tell how pictures were made.

Legend: N views, H W picture size.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from captures.doctor.findings import Finding, exclusion, listed
from captures.doctor.inventory import Reading

MATTES = {"black": (0, 0, 0), "white": (255, 255, 255)}
# Colours differ visibly between the hypotheses only where the matte would change them this much.
_TELLING = 0.1
_SLACK = 0.03


@dataclass
class AlphaTally:
    """Evidence gathered over pictures.

    Attributes:
        edge: pixels of partial alpha beside opaque ones.
        telling, votes, violations: for each matte, edge pixels that could tell it, those that
            speak for it, and those of all that it cannot explain.
        opaque, empty, inverted: names of pictures; ``pictures`` of all seen.
    """

    edge: int = 0
    telling: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MATTES, 0))
    votes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MATTES, 0))
    violations: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MATTES, 0))
    opaque: list[tuple[str, int]] = field(default_factory=list)
    empty: list[tuple[str, int]] = field(default_factory=list)
    inverted: list[tuple[str, int]] = field(default_factory=list)
    pictures: int = 0

    def add(self, view: tuple[str, int], rgba: np.ndarray, edges: bool = True) -> None:
        """Look at one picture, uint8 [H, W, 4]; at its edges' colours too where ``edges``."""
        self.pictures += 1
        alpha = rgba[..., 3].astype(np.float32) / 255
        border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
        if (alpha > 0.98).mean() > 0.995:
            self.opaque.append(view)
        elif (alpha > 0.5).mean() < 1e-3:
            self.empty.append(view)
        elif border.mean() > 0.7 and alpha.mean() < border.mean() - 0.1:
            # A bust is cut by the lower border at most, so a mostly opaque frame is background.
            self.inverted.append(view)
        elif edges:
            self._weigh_edges(rgba[..., :3].astype(np.float32) / 255, alpha)

    def _weigh_edges(self, color: np.ndarray, alpha: np.ndarray) -> None:
        opaque = (alpha >= 0.98).astype(np.float32)
        count = _window_sum(opaque)
        near = np.stack([_window_sum(color[..., k] * opaque) for k in range(3)], axis=-1)
        near /= np.maximum(count, 1)[..., None]
        edge = (alpha > 0.15) & (alpha < 0.85) & (count > 0)
        color, near, a = color[edge], near[edge], alpha[edge][:, None]
        self.edge += len(a)
        straight = np.abs(color - near).mean(axis=1)
        for name, matte in MATTES.items():
            level = matte[0] / 255
            blended = near * a + (1 - a) * level
            telling = np.abs(blended - near).mean(axis=1) > _TELLING
            nearer = np.abs(color - blended).mean(axis=1) < straight
            self.telling[name] += int(telling.sum())
            self.votes[name] += int((telling & nearer).sum())
            # A colour blended with black by alpha is never brighter than alpha; white: mirrored.
            distance = np.abs(color - level).max(axis=1)
            self.violations[name] += int((distance > a[:, 0] + _SLACK).sum())

    def matte(self) -> str | None:
        """The matte that the colours were blended with, or None for straight alpha."""
        for name in MATTES:
            enough = self.telling[name] >= 50
            if enough and self.votes[name] > 0.8 * self.telling[name]:
                if self.violations[name] < 0.02 * self.edge:
                    return name
        return None


def _window_sum(values: np.ndarray, radius: int = 2) -> np.ndarray:
    """Sum over the (2·radius + 1)² pixels around each pixel of [H, W]."""
    padded = np.pad(values, ((radius + 1, radius), (radius + 1, radius)))
    total = padded.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    step = 2 * radius + 1
    return total[step:, step:] - total[:-step, step:] - total[step:, :-step] + total[:-step, :-step]


def check_alpha(tally: AlphaTally, reading: Reading) -> list[Finding]:
    """Findings from the pictures seen so far."""
    found: list[Finding] = []
    portrait = reading.pictures.portrait_frame

    def add(kind: str, views: list[tuple[str, int]], what: str, cure: str, fix: dict | None):
        names = [f"{name} frame {frame}" for name, frame in views]
        text = f"{len(views)} of {tally.pictures} pictures {what}: {listed(names)}"
        found.append(Finding(kind, text, cure, names, fix))

    def left_out(views: list[tuple[str, int]]) -> dict | None:
        """Without some views, where they are few."""
        return exclusion(views, portrait) if 4 * len(views) <= tally.pictures else None

    if tally.inverted:
        whole = 2 * len(tally.inverted) > tally.pictures
        invert = {"pictures": {"inverted_alpha": not reading.pictures.inverted_alpha}}
        add(
            "inverted-alpha",
            tally.inverted,
            "are opaque around the subject and transparent on it",
            "invert the alpha channel",
            invert if whole else exclusion(tally.inverted, portrait),
        )
    if tally.opaque:
        add(
            "opaque-alpha",
            tally.opaque,
            "have an alpha channel that is opaque everywhere",
            "cut the background out (a matting tool, or a transparent film when rendering)",
            left_out(tally.opaque),
        )
    if tally.empty:
        add(
            "empty-picture",
            tally.empty,
            "show nothing",
            "render them again with the subject in front of the camera, or leave them out",
            left_out(tally.empty),
        )
    matte = tally.matte()
    if matte is not None:
        what = "premultiplied by alpha" if matte == "black" else "blended with white by alpha"
        fringe = "dark" if matte == "black" else "white"
        found.append(
            Finding(
                "premultiplied-alpha" if matte == "black" else "white-matte",
                f"colours are {what}, which gives {fringe} fringes around hair and shoulders "
                f"({tally.votes[matte]} of {tally.telling[matte]} edge pixels say so)",
                f"read the pictures as having a {matte} matte, so that straight colours come back",
                [],
                {"pictures": {"matte": list(MATTES[matte])}},
            )
        )
    return found
