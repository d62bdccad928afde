"""Mirrored people: planes, cameras and portraits agree with each other."""

from pathlib import Path

import pytest
import torch

from captures.cameras import look_at, pinhole
from diffusion.conditioning.features import PortraitEncoder
from diffusion.data.pairs import DenoisingDataset, PairedSet
from diffusion.data.portraits import PicturePortraits
from diffusion.training.render_loss import RayPatch
from diffusion.training.train_base import TrainBaseConfig, train_base
from renderer.decoder import TriplaneDecoder
from renderer.render import RenderSettings, build_occupancy, render_image, render_rays
from renderer.triplane import mirror_planes, sample_planes
from renderer.triplane_sets import PackConfig, pack
from runtime.errors import UserError
from runtime.formats.tensor_files import load_tensors
from tests.diffusion.tiny import tiny_base

SETTINGS = RenderSettings(steps=96, grid=16)


@pytest.fixture
def scene() -> tuple[torch.Tensor, TriplaneDecoder]:
    """A lopsided triplane and a decoder that does not look at the view's direction."""
    torch.manual_seed(0)
    decoder = TriplaneDecoder(channels=8, color_channels=6, hidden=16)
    decoder.remove_view_dependence()
    coarse = torch.randn(3, 8, 4, 4) * 0.6
    planes = torch.nn.functional.interpolate(coarse, (24, 24), mode="bicubic").clamp(-1, 1)
    return planes, decoder.eval().requires_grad_(False)


def test_features_lie_at_the_mirrored_place(scene):
    planes, _ = scene
    points = torch.rand(50, 3) * 2 - 1
    mirrored = points * torch.tensor([-1.0, 1.0, 1.0])
    found = sample_planes(mirror_planes(planes), mirrored)
    assert torch.allclose(found, sample_planes(planes, points), atol=1e-6)
    assert torch.equal(mirror_planes(mirror_planes(planes)), planes)


def test_mirrored_planes_render_the_flipped_picture(scene):
    planes, decoder = scene
    eye = torch.tensor([[1.5, 0.7, 3.4]])
    camera = pinhole(look_at(eye, torch.tensor([0.1, 0.0, 0.0])), 29, 24)
    pictures = []
    for each, cameras in ((planes, camera), (mirror_planes(planes), camera.mirrored())):
        grid = build_occupancy(each, decoder, SETTINGS)
        grid.occupied |= build_occupancy(each, decoder, SETTINGS).occupied
        pictures.append(render_image(each, decoder, cameras, 1.0, SETTINGS, grid).color)
    assert pictures[0].std() > 0.02
    assert torch.allclose(pictures[1], pictures[0].flip(1), atol=1e-5)
    c2w = camera.mirrored().c2w[0, :3, :3]
    assert torch.allclose(c2w @ c2w.T, torch.eye(3), atol=1e-6) and torch.det(c2w) > 0


def test_mirrored_patches_show_the_mirrored_planes(scene):
    planes, decoder = scene
    camera = pinhole(look_at(torch.tensor([[1.5, 0.7, 3.4]]), torch.zeros(3)), 29, 12)
    origins, directions = camera.image_rays(0)
    patch = RayPatch(origins[None], directions[None], torch.zeros(1, 144, 3))
    colors = []
    for each, rays in ((planes, patch), (mirror_planes(planes), patch.mirrored())):
        grid = build_occupancy(each, decoder, SETTINGS)
        shown = render_rays(
            each, decoder, grid, rays.origins[0], rays.directions[0], 1.0, SETTINGS
        )
        colors.append(shown.color)
    assert torch.allclose(colors[0], colors[1], atol=1e-5)


def test_half_of_the_problems_are_mirrored_with_their_portraits(
    tiny_fitted, tiny_views, tiny_vae, tmp_path
):
    portraits = PicturePortraits(tiny_views, PortraitEncoder(tiny_vae, 32), tmp_path)
    pairs = PairedSet(tiny_fitted, portraits, ["s0", "s1"], (8,), normalization="mean")
    dataset = DenoisingDataset(pairs, 20, 0.0, 3, "base", mirror=True)
    mirrored = [dataset.mirrored_at(position) for position in range(400)]
    assert 160 < sum(mirrored) < 240
    position = mirrored.index(True)
    item = dataset[position]
    (name,) = item.names
    planes = mirror_planes(pairs.true_planes(name))
    assert torch.equal(item.planes[0].float(), planes)
    straight = portraits.draw(name)
    assert torch.equal(item.portrait, straight.flip(-1))
    assert item.portrait.dtype == torch.uint8


def test_pictures_encoded_on_the_go_are_the_stored_features(
    tiny_views, tiny_vae, tiny_features, tmp_path
):
    portraits = PicturePortraits(tiny_views, PortraitEncoder(tiny_vae, 32), tmp_path)
    found = portraits.features(portraits.draw("s1"))
    stored = tiny_features.load("s1")
    # The picture is rounded to 8 bits after it was composited on white.
    assert torch.allclose(found.latent, stored.latent, atol=0.02)
    for key in ("vae_hash", "image_size", "latent_shape", "level_shapes"):
        assert portraits.manifest[key] == tiny_features.manifest[key]


def test_training_from_pictures(tiny_fitted, tiny_features, tiny_views, tiny_vae, tmp_path: Path):
    model = tiny_base(pixel_aligned=4)
    settings = {
        "triplanes": tiny_fitted.folder,
        "root": tiny_views.root,
        "plane_size": 8,
        "image_size": 32,
        "model": model,
        "steps": 2,
        "batch_size": 2,
        "sample_every": 0,
        "device": "cpu",
    }
    train_base(
        TrainBaseConfig(output_dir=tmp_path / "run", vae=str(tiny_vae), mirror=True, **settings)
    )
    assert (tmp_path / "run" / "snapshots" / "model" / "unet").is_dir()

    # Archives of another place: stopped and resumed, mirrored, it ends the same.
    away = tmp_path / "away"
    small = 2 * tiny_fitted.path("s0").stat().st_size / 2**20
    pack(PackConfig(tiny_fitted.folder, tmp_path / "packed", small, away.as_uri()))
    away.mkdir()
    for archive in (tmp_path / "packed").glob("*.tar"):
        archive.rename(away / archive.name)
    for folder, steps in (("whole", 2), ("parted", 1), ("parted", 2)):
        streamed = {**settings, "triplanes": tmp_path / "packed", "steps": steps}
        output = tmp_path / folder
        train_base(
            TrainBaseConfig(output_dir=output, vae=str(tiny_vae), mirror=True, **streamed)
        )
    unet = "snapshots/model/unet/diffusion_pytorch_model.safetensors"
    whole, parted = (load_tensors(tmp_path / each / unet)[0] for each in ("whole", "parted"))
    assert all(torch.equal(whole[key], parted[key]) for key in whole)
    assert len(list((tmp_path / "packed" / "fetched").glob("*.tar"))) >= 2

    def refuses(words: str, **changes) -> None:
        with pytest.raises(UserError, match=words):
            train_base(TrainBaseConfig(output_dir=tmp_path / "x", **(settings | changes)))

    refuses("give either --features, or --vae")
    refuses("--mirror needs the portraits' pictures", features=tiny_features.folder, mirror=True)
    refuses("--vae needs --root", vae=str(tiny_vae), root=None)
