import pytest
import torch

from captures.cameras import orbit_cameras
from captures.multiview import MultiViewSet
from diffusion.training.render_loss import PatchSource, RayPatch, render_losses
from renderer.fitted_set import FittedSet
from renderer.render import RenderSettings, build_occupancy, render_image
from runtime.errors import UserError

SETTINGS = RenderSettings(steps=48, grid=16)


def test_patches_show_what_their_rays_see(tiny_views: MultiViewSet) -> None:
    source = PatchSource(tiny_views, 8, (1, 2), (0.5, 0.5))
    seen = set()
    for seed in range(40):
        patch = source.draw("s1", torch.Generator().manual_seed(seed))
        assert patch.colors.shape == (1, 64, 3)
        covered = float((patch.colors < 0.99).any(-1).float().mean())
        assert covered >= 0.05
        best = None
        for frame in range(6):
            views = tiny_views.load("s1", [frame])
            if not torch.allclose(patch.origins[0, 0], views.cameras.c2w[0, :3, 3], atol=1e-5):
                continue
            # Project points on the rays: they fall on the pixels the colours were taken from.
            points = patch.origins[0] + 2.0 * patch.directions[0]
            pixels, _ = views.cameras.project(points)
            x, y = pixels[0].long().clamp(0, 31).unbind(-1)
            colors = views.composited(1.0)[0][y, x]
            best = float((colors - patch.colors[0]).abs().mean())
            seen.add(frame)
        # A view shrunk by 2 differs at the disc's edge.
        assert best is not None and best < 0.1
    assert seen == {0, 1, 2, 3, 4}  # frame 5 is held out


def test_patch_settings_are_checked(tiny_views: MultiViewSet) -> None:
    with pytest.raises(UserError, match="sum to 1"):
        PatchSource(tiny_views, 8, (1, 2), (0.5, 0.6))
    with pytest.raises(UserError, match="as many downscale_probabilities"):
        PatchSource(tiny_views, 8, (1, 2), (1.0,))
    with pytest.raises(UserError, match="can't be cut"):
        PatchSource(tiny_views, 24, (2,), (1.0,)).draw("s0", torch.Generator())


def test_loss_is_zero_at_the_truth_and_pulls_towards_it(tiny_fitted: FittedSet) -> None:
    decoder = tiny_fitted.decoder()
    start = tiny_fitted.load("s0")[None]
    cameras = orbit_cameras(1, size=12)
    grid = build_occupancy(start[0], decoder, SETTINGS)
    image = render_image(start[0], decoder, cameras, 1.0, SETTINGS, grid)
    origins, directions = cameras.image_rays(0)
    patch = RayPatch(origins[None], directions[None], image.color.reshape(1, -1, 3))
    same = render_losses(start, start, patch, decoder, SETTINGS)
    assert float(same["render_l1"]) < 1e-6
    wrong = (start + 0.3 * torch.randn(start.shape)).clamp(-0.99, 0.99).requires_grad_()

    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        assert a.shape == (1, 12, 12, 3)
        return (a - b).square().mean(dim=(1, 2, 3))

    losses = render_losses(wrong, start, patch, decoder, SETTINGS, distance)
    (gradient,) = torch.autograd.grad(losses["render_l1"].sum(), wrong)
    assert set(losses) == {"render_l1", "render_lpips"} and float(gradient.abs().max()) > 0
    stepped = (wrong - 0.02 * gradient / gradient.norm() * wrong.norm()).detach()
    lower = render_losses(stepped, start, patch, decoder, SETTINGS)
    assert float(lower["render_l1"]) < float(losses["render_l1"].detach())
