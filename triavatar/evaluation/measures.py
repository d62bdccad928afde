"""What is measured of rendered views against true ones.

Letters: N views, H, W picture size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from captures.cameras import Cameras
from renderer.metrics import psnr, ssim
from triavatar.evaluation.frechet import FeatureMoments, frechet_distance
from triavatar.evaluation.networks import Embed

Metric = Callable[[Tensor, Tensor], Tensor]
"""Two batches of pictures [N, H, W, 3] in 0..1 → a value for each pair [N]."""
FULL_ERROR = 0.25
"""Mean difference of colours that an error map shows as white."""


def finite_psnr(a: Tensor, b: Tensor) -> Tensor:
    """PSNR in dB with 8-bit pictures in mind: equal ones count as 100 dB."""
    return psnr(a, b).clamp(max=100)


def similarity(embed: Embed) -> Metric:
    """Cosine similarity of unit vectors, -1..1."""
    return lambda a, b: (embed(a) * embed(b)).sum(-1)


def facing(cameras: Cameras, most_degrees: float) -> Tensor:
    """Return which cameras look at the face, [N] bool: at most so far from straight ahead (+z)."""
    place = torch.nn.functional.normalize(cameras.c2w[:, :3, 3], dim=-1)
    return place[:, 2] >= np.cos(np.radians(most_degrees))


@dataclass
class Measures:
    """Every metric that was asked for and whose network is there.

    Attributes:
        pictures: metrics of pairs of pictures, by name.
        identity: similarity of faces; measured where the face is seen.
        face_angle: degrees from straight ahead up to which a face is seen.
        inception: features of FID.
        notes: metric → why it was not measured.
    """

    pictures: dict[str, Metric] = field(default_factory=lambda: {"psnr": finite_psnr, "ssim": ssim})
    identity: Metric | None = None
    face_angle: float = 45.0
    inception: Embed | None = None
    notes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rendered, self.true = FeatureMoments(), FeatureMoments()
        self._halves = (FeatureMoments(), FeatureMoments())
        self._people = 0

    def of_subject(self, ours: Tensor, true: Tensor, cameras: Cameras) -> dict[str, float]:
        """Mean metrics of one subject's views [N, H, W, 3]; adds them to the FID's sums."""
        scores = {key: float(metric(ours, true).mean()) for key, metric in self.pictures.items()}
        if self.identity is not None:
            seen = facing(cameras, self.face_angle)
            if seen.any():
                scores["csim"] = float(self.identity(ours[seen], true[seen]).mean())
        if self.inception is not None:
            features = self.inception(true)
            self.rendered.add(self.inception(ours))
            self.true.add(features)
            self._halves[self._people % 2].add(features)
        self._people += 1
        return scores

    def frechet(self) -> dict[str, float] | None:
        """Return the FID, the number of pictures, and its floor; None where it wasn't measured.

        The floor is the FID between the true pictures of every second person and those of the
        others: what people and their small number alone account for.
        """
        if self.inception is None or self.true.count < 2:
            return None
        result = {
            "fid": frechet_distance(self.rendered, self.true),
            "pictures": self.true.count,
        }
        if min(half.count for half in self._halves) > 1:
            result["floor"] = frechet_distance(*self._halves)
        return result


def error_map(ours: Tensor, true: Tensor) -> np.ndarray:
    """Where two pictures [H, W, 3] differ: uint8 [H, W, 3], black, red, yellow to white."""
    error = (ours - true).abs().mean(dim=-1) / FULL_ERROR * 3
    ramp = torch.stack([error, error - 1, error - 2], dim=-1).clamp(0, 1)
    return (ramp * 255).round().byte().cpu().numpy()
