"""The residual upsampler starts as a plain resize."""

import torch

from diffusion.networks.upsampler import TriplaneUpsampler, upsample_rollout


def test_an_untrained_residual_upsampler_resizes():
    model = TriplaneUpsampler(
        plane_channels=4,
        plane_size=16,
        low_res_size=8,
        width=8,
        multipliers=(1, 2),
        blocks=(1, 1),
        attention_sizes=(8,),
        head_channels=8,
        latent_size=8,
        latent_patch=4,
        latent_width=16,
        feature_channels=(8, 8, 8),
        feature_sizes=(32, 16, 8),
        token_width=16,
        residual=True,
    )
    x, low_res = torch.randn(2, 4, 16, 48), torch.rand(2, 4, 8, 24) * 2 - 1
    torch.testing.assert_close(model(x, 3, low_res), upsample_rollout(low_res, 16))
