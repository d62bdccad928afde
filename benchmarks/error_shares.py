"""The squared error of a fitted triplane on held-out views, by distance from the silhouette.

Prints, for a few distances in pixels, the share of pixels and of the error within them and the PSNR
were that part right; and what the true pictures score when halved and enlarged again.

    PYTHONPATH=. python benchmarks/error_shares.py --root SET --triplanes FOLDER --subject NAME
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt

from captures.multiview import MultiViewSet
from fitting.subject_fit import held_out_quality
from renderer.fitted_set import FittedSet
from renderer.metrics import psnr, ssim
from renderer.render import RenderSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--root", type=Path, required=True, help="multi-view set")
    parser.add_argument("--triplanes", type=Path, required=True, help="triplane folder")
    parser.add_argument("--subject", required=True)
    parser.add_argument("--steps", type=int, default=256, help="samples along the box's diagonal")
    parser.add_argument("--grid", type=int, default=64, help="occupancy cells along one side")
    parser.add_argument("--against", type=Path, help="another drawing of the same views to score")
    options = parser.parse_args()
    data, fitted = MultiViewSet(options.root), FittedSet.open(options.triplanes)
    views = data.load(options.subject, data.split_views("test", options.subject))
    settings = RenderSettings(steps=options.steps, grid=options.grid)
    quality = held_out_quality(fitted.load(options.subject), fitted.decoder(), views, settings)
    truth = views.composited(1.0)
    error = (quality.images.clamp(0, 1) - truth).square().mean(-1)
    inside = views.images[..., 3] >= 128
    distance = torch.stack(
        [torch.from_numpy(distance_transform_edt(m) + distance_transform_edt(~m)) for m in inside]
    )
    print(f"{len(inside)} held-out views: {quality.mean_psnr:.2f} dB, SSIM {quality.mean_ssim:.3f}")
    for pixels in (1, 2, 3):
        near = distance <= pixels
        left = torch.where(near, 0.0, error).mean((1, 2))
        mean = sum(-10 * math.log10(float(view)) for view in left) / len(left)
        print(
            f"within {pixels} px of the silhouette: {100 * near.float().mean():.1f} % of pixels, "
            f"{100 * error[near].sum() / error.sum():.0f} % of the error, {mean:.1f} dB without"
        )
    pictures = truth.permute(0, 3, 1, 2)
    coarse = F.interpolate(F.avg_pool2d(pictures, 2), scale_factor=2.0, mode="bilinear")
    coarse = coarse.permute(0, 2, 3, 1)
    print(
        f"true pictures halved and enlarged: {psnr(coarse, truth).mean():.1f} dB, "
        f"SSIM {ssim(coarse, truth).mean():.3f}"
    )
    if options.against is not None:
        other = MultiViewSet(options.against).load(options.subject, views.frames).composited(1.0)
        print(
            f"{options.against}: differs by {psnr(truth, other).mean():.1f} dB, the fit scores "
            f"{psnr(quality.images.clamp(0, 1), other).mean():.1f} dB on it"
        )


if __name__ == "__main__":
    main()
