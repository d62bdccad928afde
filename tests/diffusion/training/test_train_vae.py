import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from captures.multiview import MultiViewSet
from diffusion.conditioning.features import PortraitEncoder, portrait_tensor
from diffusion.training.train_vae import (
    PictureDataset,
    TrainVaeConfig,
    VaePass,
    build_vae,
    train_vae,
    vae_losses,
)
from runtime.errors import UserError


def config(root: Path, folder: Path, **changes) -> TrainVaeConfig:
    values = {
        "image_size": 16,
        "block_out_channels": (8, 8, 16),
        "norm_num_groups": 4,
        "steps": 12,
        "batch_size": 4,
        "learning_rate": 3e-3,
        "ema_decay": 0.0,
        "log_every": 1,
        "save_every": 6,
        "sample_every": 12,
        "device": "cpu",
    }
    return TrainVaeConfig(root=root, output_dir=folder, **(values | changes))


def test_stage_learns_and_writes_a_diffusers_vae(tiny_views: MultiViewSet, tmp_path: Path) -> None:
    settings = config(tiny_views.root, tmp_path)
    train_vae(settings)
    rows = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert len(rows) == 12 and rows[-1]["l1"] < 0.8 * rows[0]["l1"]
    vae = AutoencoderKL.from_pretrained(tmp_path / "snapshots" / "model")
    assert (tmp_path / "images" / "reconstructions_00000012.png").exists()
    names = tiny_views.split("train")
    portraits = [portrait_tensor(tiny_views.portrait(name), 16) for name in names]
    features = PortraitEncoder(vae, 16).encode(torch.stack(portraits))
    # The stored scaling factor gives the training portraits' latents unit variance.
    assert abs(float(features.latent.std()) - 1) < 1e-3


def test_only_training_views_of_training_identities(
    tiny_views: MultiViewSet, tmp_path: Path
) -> None:
    settings = config(tiny_views.root, tmp_path, portrait_share=0.5)
    dataset = PictureDataset(tiny_views, tiny_views.split("train"), settings)
    loaded = {position: dataset[position] for position in range(200)}
    keys = {tuple(key.rsplit("/", 1)) for key in dataset.pictures.items}
    assert {name for name, _ in keys} == {"s0", "s1", "s2", "s3"}
    assert {int(frame) for _, frame in keys} == {0, 1, 2, 3, 4}
    again = PictureDataset(tiny_views, tiny_views.split("train"), settings)[17]
    assert torch.equal(again.images, loaded[17].images)
    assert torch.equal(again.noise, loaded[17].noise)


def test_pass_matches_diffusers(tiny_views: MultiViewSet, tmp_path: Path) -> None:
    settings = config(tiny_views.root, tmp_path, kl_weight=0.5)
    vae = build_vae(settings)
    images, noise = torch.rand(2, 3, 16, 16), torch.zeros(2, 4, 4, 4)
    with torch.no_grad():
        reconstruction, kl = VaePass(vae)(images, noise)
        posterior = vae.encode(images * 2 - 1).latent_dist
        expected = vae.decode(posterior.mode()).sample / 2 + 0.5
    torch.testing.assert_close(reconstruction, expected)
    divergence = torch.distributions.kl_divergence(
        torch.distributions.Normal(posterior.mean, posterior.std),
        torch.distributions.Normal(0.0, 1.0),
    )
    torch.testing.assert_close(kl, divergence.sum(dim=(1, 2, 3)), rtol=1e-4, atol=1e-4)
    losses = vae_losses(torch.full((2, 3, 16, 16), 0.5), kl, torch.ones(2, 3, 16, 16), settings)
    torch.testing.assert_close(losses["loss"], 0.5 + 0.25 + 0.5 * kl)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 18}, "no multiple of 4"),
        ({"block_out_channels": (8, 8)}, "at least 3"),
        ({"norm_num_groups": 3}, "must divide"),
        ({"portrait_share": 2.0}, "portrait_share"),
    ],
)
def test_bad_settings(tiny_views: MultiViewSet, tmp_path: Path, changes: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        train_vae(config(tiny_views.root, tmp_path, **changes))
