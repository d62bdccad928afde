"""Picture metrics. All take pictures in [0, 1], [..., H, W, 3]."""

from __future__ import annotations

import torch
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
    """Structural similarity per picture (Wang 2004: 11-pixel Gaussian window), [...]."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    _check(a, b)
    shape = a.shape[:-3]
    a, b = (x.reshape(-1, *x.shape[-3:]).permute(0, 3, 1, 2).float() for x in (a, b))
    values = structural_similarity_index_measure(a, b, data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)
    return values.reshape(shape)


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
            raise UserError(
                f"LPIPS could not load its {network} weights ({error}); fetch torchvision's "
                f"{network} checkpoint once on a machine with network access, or copy it into "
                "torch's hub folder (torch.hub.get_dir()/checkpoints)"
            ) from None
        self.model.requires_grad_(False)

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance per picture, [...]; differentiable to both."""
        _check(a, b)
        shape = a.shape[:-3]
        a, b = (x.reshape(-1, *x.shape[-3:]).permute(0, 3, 1, 2) * 2 - 1 for x in (a, b))
        return self.model(a, b).reshape(shape)
