"""Picture metrics. All take pictures in [0, 1], [..., H, W, 3]."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.errors import UserError


def _check(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.shape[-1] != 3 or a.ndim < 3:
        raise ValueError(
            f"pictures must share [..., H, W, 3]; got {list(a.shape)}, {list(b.shape)}"
        )


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio per picture in dB, [...]; infinite for equal pictures."""
    _check(a, b)
    return -10 * torch.log10((a.double() - b.double()).square().mean(dim=(-3, -2, -1)))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity per picture (Wang et al. 2004), [...].

    Gaussian window of 11 pixels with σ = 1.5, C₁ = 0.01², C₂ = 0.03², mean over colours and over
    the windows that lie inside the picture. Written out because the libraries that have it take
    seconds to import; the tests compare with one.

    Raises:
        ValueError: if a side is shorter than the window.
    """
    _check(a, b)
    if min(a.shape[-3:-1]) < 11:
        raise ValueError(f"SSIM needs pictures of 11 pixels or more, got {list(a.shape)}")
    shape = a.shape[:-3]
    a, b = (x.reshape(-1, *x.shape[-3:]).permute(0, 3, 1, 2).double() for x in (a, b))
    offset = torch.arange(-5, 6, dtype=a.dtype, device=a.device)
    window = torch.exp(-offset.square() / (2 * 1.5**2))
    window = (window / window.sum()).expand(3, 1, 1, -1)

    def mean(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, window, groups=3), window.transpose(2, 3), groups=3)

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return (luminance * structure).mean(dim=(1, 2, 3)).reshape(shape)


# torchvision's files, which the lpips package puts its own few weights on top of.
BACKBONES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}


class Lpips:
    """Learned perceptual distance (Zhang 2018); needs the ``lpips`` package and its weights.

    Args:
        network: "alex" or "vgg".

    Raises:
        UserError: if the package or its weights are not there; says what to fetch.
    """

    def __init__(self, network: str = "vgg", device: torch.device | str = "cpu"):
        try:
            import lpips
        except ImportError as error:
            raise UserError(
                f"LPIPS needs the packages lpips and torchvision (pip install lpips): {error}"
            ) from None
        try:
            self.model = lpips.LPIPS(net=network, verbose=False).to(device).eval()
        except Exception as error:  # lpips raises whatever its download raised
            folder = Path(torch.hub.get_dir()) / "checkpoints"
            raise UserError(
                f"LPIPS could not load its {network} weights ({error}); fetch torchvision's "
                f"{BACKBONES[network]} once on a machine with network access and copy it to "
                f"{folder}"
            ) from None
        self.model.requires_grad_(False)

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance per picture, [...]; differentiable to both."""
        _check(a, b)
        shape = a.shape[:-3]
        a, b = (x.reshape(-1, *x.shape[-3:]).permute(0, 3, 1, 2) * 2 - 1 for x in (a, b))
        return self.model(a, b).reshape(shape)
