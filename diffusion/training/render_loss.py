"""The upsampler's loss on rendered patches.

Letters: B batch, R rays of a patch (its pixels, row by row), C channels, H, W plane size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captures.multiview import MultiViewSet, Views
from diffusion.data.cache import Cache
from renderer.decoder import TriplaneDecoder
from renderer.render import RenderSettings, build_occupancy, render_rays
from runtime.errors import UserError

MIN_COVERED = 0.05
"""Share of pixels that must not be white; a patch with less is drawn again."""
WHITE = 0.99
MAX_DRAWS = 16


@dataclass
class RayPatch:
    """Square patches of true views.

    Attributes:
        origins: [B, R, 3], world units.
        directions: [B, R, 3], unit.
        colors: [B, R, 3], the pictures on white, 0..1.
    """

    origins: Tensor
    directions: Tensor
    colors: Tensor

    def to(self, device: torch.device | str) -> RayPatch:
        return RayPatch(self.origins.to(device), self.directions.to(device), self.colors.to(device))

    def pin_memory(self) -> RayPatch:
        """Copy into memory that a GPU reads by itself."""
        pinned = (x.pin_memory() for x in (self.origins, self.directions, self.colors))
        return RayPatch(*pinned)

    def mirrored(self) -> RayPatch:
        """The same pictures of the world mirrored in x."""
        flip = torch.tensor([-1.0, 1.0, 1.0])
        return RayPatch(self.origins * flip, self.directions * flip, self.colors)

    @staticmethod
    def join(items: Sequence[RayPatch]) -> RayPatch:
        """Concatenates along B."""
        return RayPatch(
            torch.cat([item.origins for item in items]),
            torch.cat([item.directions for item in items]),
            torch.cat([item.colors for item in items]),
        )


class PatchSource:
    """Draws patches from the training views of a set's subjects.

    Args:
        views: the multi-view set.
        patch_size: side in pixels.
        downscales: factors by which a view is shrunk before the patch is cut.
        probabilities: of each factor.
        cache_gib: memory for pictures, GiB.
    """

    def __init__(
        self,
        views: MultiViewSet,
        patch_size: int,
        downscales: Sequence[int],
        probabilities: Sequence[float],
        cache_gib: float = 2.0,
    ) -> None:
        if len(downscales) != len(probabilities) or not downscales or min(downscales) < 1:
            raise UserError(
                f"downscales {tuple(downscales)} need as many downscale_probabilities, "
                f"got {tuple(probabilities)}"
            )
        if min(probabilities) < 0 or not 0.999 < sum(probabilities) < 1.001:
            raise UserError(f"downscale_probabilities {tuple(probabilities)} don't sum to 1")
        self.views = views
        self.patch_size = patch_size
        self.downscales = list(downscales)
        self.probabilities = torch.tensor(list(probabilities), dtype=torch.float32)
        self._cache = Cache(self._load, lambda item: item.images.nbytes, cache_gib * 2**30)
        self._sizes: dict[str, int] = {}

    def _load(self, key: str) -> Views:
        name, frame, size = key.rsplit("/", 2)
        return self.views.load(name, [int(frame)], size=int(size))

    def _size(self, name: str) -> int:
        """Side in pixels of a subject's pictures."""
        if name not in self._sizes:
            height, width = self.views.portrait(name).shape[:2]
            if height != width or height // max(self.downscales) < self.patch_size:
                raise UserError(
                    f"patches of {self.patch_size}² pixels can't be cut from the pictures of "
                    f"{self.views.root / name} ({width} x {height}) shrunk by up to "
                    f"{max(self.downscales)}: lower patch_size or downscales"
                )
            self._sizes[name] = height
        return self._sizes[name]

    def draw(self, name: str, random: torch.Generator) -> RayPatch:
        """A patch (B = 1) of a random training view; drawn again while it is nearly white."""
        frames = self.views.split_views("train", name)
        if not frames:
            raise UserError(f"{self.views.root / name} has no training views")
        patch = None
        for _ in range(MAX_DRAWS):
            frame = frames[int(torch.randint(len(frames), (), generator=random))]
            chosen = int(torch.multinomial(self.probabilities, 1, generator=random))
            size = self._size(name) // self.downscales[chosen]
            corner = torch.randint(size - self.patch_size + 1, (2,), generator=random)
            patch = self._cut(self._cache[f"{name}/{frame}/{size}"], corner.tolist())
            if float((patch.colors < WHITE).any(dim=-1).float().mean()) >= MIN_COVERED:
                break
        assert patch is not None
        return patch

    def _cut(self, view: Views, corner: list[int]) -> RayPatch:
        y, x = (slice(first, first + self.patch_size) for first in corner)
        colors = view.composited(1.0)[0, y, x]
        rows, columns = torch.meshgrid(
            torch.arange(y.start, y.stop) + 0.5, torch.arange(x.start, x.stop) + 0.5, indexing="ij"
        )
        first_view = torch.zeros(rows.numel(), dtype=torch.long)
        origins, directions = view.cameras.rays(first_view, columns.reshape(-1), rows.reshape(-1))
        return RayPatch(origins[None], directions[None], colors.reshape(1, -1, 3))


def render_losses(
    predicted: Tensor,
    start: Tensor,
    patch: RayPatch,
    decoder: TriplaneDecoder,
    settings: RenderSettings,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Compares renderings of predicted planes with true patches.

    Rays are marched where either the predicted or the true planes hold matter: space that the
    prediction lacks gets gradients as well as space it should leave empty.

    Args:
        predicted: planes as predicted [B, P, C, H, W]; rendered clamped to -1..1.
        start: the true planes, same shape.
        patch: B square patches.
        decoder: frozen.
        settings: of the marching.
        perceptual: LPIPS of pictures [B, h, w, 3]; left out without.

    Returns:
        Per-sample "render_l1" [B] and, with `perceptual`, "render_lpips" [B]; differentiable to
        predicted.
    """
    planes, truth = predicted.float().clamp(-1, 1), start.float()
    colors = []
    for index in range(len(planes)):
        grid = build_occupancy(planes[index].detach(), decoder, settings)
        grid.occupied |= build_occupancy(truth[index], decoder, settings).occupied
        rendered = render_rays(
            planes[index],
            decoder,
            grid,
            patch.origins[index],
            patch.directions[index],
            1.0,
            settings,
        )
        colors.append(rendered.color)
    color = torch.stack(colors)
    losses = {"render_l1": (color - patch.colors).abs().mean(dim=(1, 2))}
    if perceptual is not None:
        side = round(color.shape[1] ** 0.5)
        shape = (len(color), side, side, 3)
        losses["render_lpips"] = perceptual(color.view(shape), patch.colors.view(shape))
    return losses
