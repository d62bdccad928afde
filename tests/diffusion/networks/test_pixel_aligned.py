"""Portrait features laid into the planes, against the camera that took the portrait."""

import pytest
import torch

from captures.cameras import look_at, pinhole
from diffusion.conditioning.features import PortraitFeatures
from diffusion.conditioning.portrait_window import portrait_window
from diffusion.networks.pixel_aligned import PixelAligned
from renderer.triplane import unroll

SIZE = 32


def one_map(picture: torch.Tensor) -> PortraitFeatures:
    """Features whose finest map is the picture [1, c, S, S] and whose others are empty."""
    s = picture.shape[-1]
    rest = (torch.zeros(1, 2, s // 2, s // 2), torch.zeros(1, 2, s // 4, s // 4))
    return PortraitFeatures(torch.zeros(1, 4, 4, 4), (picture, *rest))


def make(window, channels: int = 2) -> PixelAligned:
    """A module that passes the finest map on as it is."""
    module = PixelAligned((2, 2, 2), (64, 32, 16), channels, window)
    for norm, layer in zip(module.norms, module.maps, strict=True):
        norm.forward = lambda x: x  # type: ignore[method-assign]
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    module.maps[0].weight.data[:, :, 0, 0] = torch.eye(2)
    return module


def test_texels_get_the_pixel_the_portrait_shows_them_at(tiny_views):
    """A picture of its own pixel coordinates: every texel reads where the camera projects it."""
    camera = pinhole(
        look_at(torch.tensor([[0.0, 0.2, 4.0]]), torch.tensor([0.0, 0.2, 0.0])), 29, 64
    )

    class OneCamera:
        def portrait_camera(self, name):
            return camera

    window = portrait_window(OneCamera(), ["anna"])
    assert window[3] - window[1] == pytest.approx(window[2] - window[0], abs=1e-3)
    assert (window[1] + window[3]) / 2 == pytest.approx(0.2, abs=1e-3)
    pixels = torch.arange(64) + 0.5
    picture = torch.stack(torch.meshgrid(pixels, pixels, indexing="xy"))[None]
    module = make(window)
    front = unroll(module(one_map(picture), torch.tensor([False]), SIZE))[0, 0]
    axis = torch.linspace(-1, 1, SIZE)
    rows, columns = 20, 9
    point = torch.tensor([[axis[columns], axis[rows], 0.0]])
    xy, _ = camera.project(point)
    # The picture is shrunk to the planes' size first, which blurs it by half a pixel of that size.
    assert torch.allclose(front[:, rows, columns], xy.flatten(), atol=0.6)


def test_other_planes_get_means_of_columns_and_rows():
    picture = torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    xy, xz, yz = unroll(make((-1, -1, 1, 1))(one_map(picture), torch.tensor([False]), SIZE))[0]
    for z in (0, 17):
        assert torch.allclose(xz[:, z, :], xy.mean(dim=1), atol=1e-6)  # by x
        assert torch.allclose(yz[:, z, :], xy.mean(dim=2), atol=1e-6)  # by y, along W


def test_dropped_portraits_leave_nothing():
    picture = torch.ones(1, 2, 64, 64)
    both = PortraitFeatures.stack([one_map(picture)] * 2)
    module = PixelAligned((2, 2, 2), (64, 32, 16), 3)
    out = module(both, torch.tensor([True, False]), SIZE)
    assert not out[0].any() and out[1].any()
    assert not module(None, torch.tensor([True]), SIZE).any()


def test_a_window_inside_out_is_refused():
    with pytest.raises(ValueError, match="left, bottom, right, top"):
        PixelAligned((2,), (64,), 3, (1, -1, -1, 1))
