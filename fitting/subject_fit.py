"""Fitting one subject's triplane to its pictures; both stages are made of this.

Legend: R rays, C channels, H plane size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from captures.multiview import Views
from fitting.consolidation import Consolidation
from fitting.free_space import FreeSpace
from fitting.losses import density_smoothness
from fitting.plane_adam import PlaneAdam, fitting_copy
from fitting.ray_pool import RayPool
from fitting.tolerance import JitterSettings, jitter
from renderer.decoder import TriplaneDecoder
from renderer.march_settings import MarchSettings, RenderSettings
from renderer.metrics import psnr, ssim
from renderer.occupancy import OccupancyGrid
from renderer.render import build_occupancy, render_image, render_rays
from renderer.triplane import resize_planes
from runtime.config import own_first, setting
from runtime.errors import UserError
from runtime.formats.tensor_files import check_adam, check_like, on_cpu
from runtime.seeds import generator


@own_first
@dataclass(kw_only=True)
class FitSettings(MarchSettings):
    """Settings of fitting a triplane to pictures, in both stages."""

    rays: int = setting(8192, at_least=1, at_most=2**22)
    """Rays per step, drawn from all training views of the subject."""
    near_fraction: float = setting(0.9, at_least=0, at_most=1)
    """Share of the rays drawn on or near the silhouette; the rest anywhere."""
    learning_rate: float = setting(2e-2, at_least=0)
    """Adam step size of the triplane at the start of a visit."""
    decay: float = setting(0.1, above=0)
    """Factor the triplane's learning rate falls by over a visit (exponentially)."""
    tv_weight: float = setting(1e-2, at_least=0)
    """Weight of the planes' total variation (mean squared texel difference)."""
    l1_weight: float = setting(1e-6, at_least=0)
    """Weight of the planes' mean absolute value."""
    l2_weight: float = setting(0.0, at_least=0)
    """Weight of the planes' mean square."""
    smoothness_weight: float = setting(2e-5, at_least=0)
    """Weight of the density smoothness loss; 0 skips it."""
    smoothness_points: int = setting(1000, at_least=1, at_most=2**22)
    """Points per step of the density smoothness loss."""
    smoothness_shift: float = setting(0.004, at_least=0)
    """Standard deviation of its displacements, world units."""
    background: float = setting(1.0, at_least=0, at_most=1)
    """Grey level behind the subject while fitting; 1 is white, on which quality is judged."""
    opacity_weight: float = setting(0.1, at_least=0)
    """Weight of the squared opacity error against the pictures' alpha. Colour on one background
    cannot tell a pale surface from the background; opacity can. (Backgrounds of random colour
    amount, in expectation, to grey 0.5 and 1/12 here, without their noise.)"""
    init_std: float = setting(0.1, at_least=0)
    """Standard deviation of a new triplane's values."""
    grid_every: int = setting(16, at_least=1)
    """Steps between refreshes of the occupancy grid."""
    free_space_weight: float = setting(0.1, at_least=0)
    """Weight of the free-space loss: points in cells that some silhouette rules out (the
    complement of the visual hull) shall be transparent, so rays need not cross them; 0 turns
    the hull off and marches through all occupied cells."""
    fill_steps: int = setting(0, at_least=0, at_most=10**9)
    """Steps at the beginning that march through the whole visual hull, not through occupied cells
    alone. A start that is no noise (the mean triplane) is empty where few people have anything,
    and what is never sampled can't grow: long hair, hats."""
    free_space_points: int = setting(2000, at_least=1, at_most=2**22)
    """Points per step of the free-space loss, half of them where density was found lately."""
    jitter: JitterSettings = field(default_factory=JitterSettings)
    """Small errors of the planes that pictures are rendered with, so that fits tolerate them."""

    def render_settings(self) -> RenderSettings:
        """The same marching for held-out views."""
        return RenderSettings.like(self)


class SubjectFit:
    """One visit to a subject: its rays, triplane, occupancy and plane optimiser.

    Args:
        name: names the random streams.
        rays: pixels of the training views, on the decoder's device.
        planes: start values [3, C, H, W]; copied.
        decoder: shared; trained by the caller or frozen.
        settings: see :class:`FitSettings`.
        seed: with the name and ``visit``, fixes every random number.
        visit: 0, 1, …; each visit makes its optimiser anew and draws new rays.
        total: steps of the visit, for the decay of the learning rate.
        scale: factor on the learning rate of this visit.
        reference: planes [3, C, H, W] that the regularisers measure from; zero without. Measured
            from a common start, the differences between subjects stay smooth and small while the
            start keeps its detail.
    """

    def __init__(
        self,
        name: str,
        rays: RayPool,
        planes: Tensor,
        decoder: TriplaneDecoder,
        settings: FitSettings,
        *,
        seed: int,
        visit: int = 0,
        total: int,
        scale: float = 1.0,
        reference: Tensor | None = None,
    ):
        device = next(decoder.parameters()).device
        self.name, self.seed, self.visit, self.total = name, seed, visit, total
        self.settings, self.decoder = settings, decoder
        self.rays = rays
        self.planes = fitting_copy(planes.to(device)).requires_grad_(True)
        self.base_rate = settings.learning_rate * scale
        self._new_optimizer(reference)
        self.grid = OccupancyGrid(settings.grid, device)
        self.hull = rays.hull(settings.grid) if settings.free_space_weight else None
        self.free_space = None if self.hull is None else FreeSpace(self.hull)
        self.step_index = 0
        self._refresh()

    def _new_optimizer(self, reference: Tensor | None) -> None:
        s = self.settings
        # Texels that few rays touch have tiny gradients; Adam's usual eps would freeze them.
        self.optimizer = PlaneAdam(
            self.planes,
            self.base_rate,
            betas=(0.9, 0.99),
            eps=1e-15,
            tv_weight=s.tv_weight,
            l1_weight=s.l1_weight,
            l2_weight=s.l2_weight,
            reference=reference,
        )

    def resize(self, size: int, reference: Tensor | None = None) -> None:
        """Go on with planes of another size and a new optimiser.

        Args:
            size: texels along one side.
            reference: what the regularisers measure from now on, [3, C, size, size].
        """
        planes = resize_planes(self.planes.detach()[None], size)[0]
        self.planes = fitting_copy(planes).requires_grad_(True)
        self._new_optimizer(reference)

    def loss(self, step: int, stream: str = "fit") -> Tensor:
        """Render loss (mean squared error) of a fresh batch of rays; scalar with graph."""
        s = self.settings
        random = generator(self.seed, stream, self.name, self.visit, step)
        batch = self.rays.draw(s.rays, s.near_fraction, random)
        shift = torch.rand(s.rays, generator=random).to(self.planes.device)
        background = self.planes.new_full((3,), s.background)
        planes = self.planes
        if s.jitter.active:
            key = (self.seed, f"{stream} jitter", self.name, self.visit, step)
            planes = jitter(planes, s.jitter, *key)
        rendered = render_rays(
            planes,
            self.decoder,
            self.grid,
            batch.origins,
            batch.directions,
            background,
            s.render_settings(),
            shift,
        )
        loss = (rendered.color - batch.target(background)).square().mean()
        if s.opacity_weight:
            error = (rendered.opacity - batch.rgba[:, 3]).square().mean()
            loss = loss + s.opacity_weight * error
        return loss

    def regularisation(self, step: int) -> Tensor:
        """Weighted regularisers of the density; those of the planes are the optimiser's.

        Scalar with graph.
        """
        s = self.settings
        total = self.planes.new_zeros(())
        if self.free_space is not None:
            random = generator(self.seed, "free space", self.name, self.visit, step)
            total = total + s.free_space_weight * self.free_space.loss(
                self.planes, self.decoder, s.free_space_points, step, random
            )
        if s.smoothness_weight:
            random = generator(self.seed, "smoothness", self.name, self.visit, step)
            points = torch.rand(s.smoothness_points, 3, generator=random) * 2 - 1
            shift = torch.randn(s.smoothness_points, 3, generator=random) * s.smoothness_shift
            points, shift = points.to(self.planes.device), shift.to(self.planes.device)
            total = total + s.smoothness_weight * density_smoothness(
                self.planes, self.decoder, points, shift
            )
        return total

    def step(self, decoder_optimizer: torch.optim.Optimizer | None = None) -> Tensor:
        """One optimisation step of the triplane and, when given its optimiser, the decoder.

        Returns:
            The render loss before the step, detached scalar.
        """
        if decoder_optimizer is not None:
            decoder_optimizer.zero_grad()
        loss = self.backward()
        self.update()
        if decoder_optimizer is not None:
            decoder_optimizer.step()
        return loss

    def backward(
        self, consolidation: Consolidation | None = None, consolidation_weight: float = 0.0
    ) -> Tensor:
        """First half of a step: set the triplane's gradient and add to the decoder's.

        Args:
            consolidation: what the decoder is held to, if anything.
            consolidation_weight: λ/2 of its penalty.

        Returns:
            The render loss, detached scalar.
        """
        s, step = self.settings, self.step_index
        if step and step % s.grid_every == 0:
            self._refresh()
        render_loss = self.loss(step)
        total = render_loss + self.regularisation(step)
        if consolidation is not None and consolidation_weight:
            total = total + consolidation_weight * consolidation.penalty(self.decoder)
        self.optimizer.zero_grad()
        total.backward()
        return render_loss.detach()

    def update(self) -> None:
        """Second half of a step: move the triplane along the gradient of :meth:`backward`."""
        rate = self.base_rate * self.settings.decay ** (self.step_index / max(self.total, 1))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.step_index += 1

    def state(self) -> dict:
        """Everything needed to go on at ``step_index``."""
        return {
            "step": self.step_index,
            "planes": self.planes.detach().cpu(),
            "optimizer": self.optimizer.state_dict(),
            "density": self.grid.density.cpu(),
            "occupied": self.grid.occupied.cpu(),
            "dense": None if self.free_space is None else self.free_space.dense.cpu(),
        }

    def moments(self) -> dict[str, Tensor]:
        """Adam's state of the planes: step, exp_avg and exp_avg_sq; empty before the first step."""
        return dict(self.optimizer.state[self.planes])

    def set_moments(self, moments: dict[str, Tensor]) -> None:
        """Go on with :meth:`moments` of an earlier visit; nothing to do for none."""
        if moments:
            state = self.optimizer.state_dict()
            self.optimizer.load_state_dict({**state, "state": {0: moments}})

    def restore(self, state: dict, file: Path, cure: str) -> None:
        """Go on from :meth:`state`.

        Args:
            file: where it was read from; cure: what to do about a damaged one, for the message.

        Raises:
            UserError: it is damaged or of another fit.
        """
        own = on_cpu(self.state())
        # The cells found dense are as many as there are.
        check_like(state, own | {"optimizer": {}, "dense": None}, file, cure)
        check_adam(state["optimizer"], self.optimizer, file, cure)
        cells = state["dense"]
        if self.free_space is not None:
            check_like(cells, own["dense"].new_zeros(len(cells), 3), file, cure, "dense")
            if len(cells) and not 0 <= int(cells.min()) <= int(cells.max()) < self.settings.grid:
                raise UserError(f"{file} is damaged (dense); {cure}")
        with torch.no_grad():
            self.planes.copy_(state["planes"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.grid.density.copy_(state["density"])
        self.grid.occupied.copy_(state["occupied"])
        if self.free_space is not None:
            self.free_space.dense = state["dense"].to(self.planes.device)
        self.step_index = state["step"]

    def _refresh(self) -> None:
        random = generator(self.seed, "grid", self.name, self.visit, self.step_index)
        self.grid.refresh(self.planes.detach(), self.decoder, generator=random, within=self.hull)
        if self.hull is not None and self.step_index < self.settings.fill_steps:
            self.grid.occupied.copy_(self.hull)


def new_planes(
    name: str, seed: int, channels: int, size: int, std: float, mean: Tensor | None = None
) -> Tensor:
    """Start values [3, C, H, H]: ``mean`` (or zero) plus Gaussian noise of ``std``."""
    noise = torch.randn(3, channels, size, size, generator=generator(seed, "init", name)) * std
    return (noise if mean is None else mean + noise).clamp(-1, 1)


@dataclass(frozen=True)
class Quality:
    """Held-out quality of one subject.

    Attributes:
        psnr: dB, one value per view, on white.
        ssim: one value per view.
        images: rendered pictures, [N, H, W, 3] in [0, 1].
    """

    psnr: list[float]
    ssim: list[float]
    images: Tensor

    @property
    def mean_psnr(self) -> float:
        return sum(self.psnr) / len(self.psnr)

    @property
    def mean_ssim(self) -> float:
        return sum(self.ssim) / len(self.ssim)


@torch.no_grad()
def held_out_quality(
    planes: Tensor, decoder: TriplaneDecoder, views: Views, settings: RenderSettings
) -> Quality:
    """PSNR and SSIM of a triplane [3, C, H, W] against views it was not fitted to."""
    grid = build_occupancy(planes, decoder, settings)
    images = torch.stack(
        [
            render_image(planes, decoder, views.cameras[i], 1.0, settings, grid).color.cpu()
            for i in range(len(views.frames))
        ]
    )
    truth = views.composited(1.0)
    return Quality(psnr(images, truth).tolist(), ssim(images, truth).tolist(), images)
