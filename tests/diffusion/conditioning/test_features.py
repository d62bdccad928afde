from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from captures.multiview import MultiViewSet
from diffusion.conditioning.encode_features import EncodeFeaturesConfig, encode_features
from diffusion.conditioning.feature_set import FeatureSet
from diffusion.conditioning.features import (
    PortraitEncoder,
    PortraitFeatures,
    load_vae,
    portrait_tensor,
)
from runtime.errors import PartialFailure, UserError
from runtime.picture_files import read_picture


def hand_written_encoder(vae: AutoencoderKL, images: torch.Tensor):
    """The encoder written out: maps before each halving, moments through quant_conv."""
    encoder, maps = vae.encoder, []
    x = encoder.conv_in(images * 2 - 1)
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            x = resnet(x, temb=None)
        maps.append(x)
        for downsampler in block.downsamplers or []:
            x = downsampler(x)
    x = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(encoder.mid_block(x))))
    if vae.quant_conv is not None:
        x = vae.quant_conv(x)
    mean, log_variance = x.chunk(2, dim=1)
    return maps, mean, (0.5 * log_variance.clamp(-30, 20)).exp()


@pytest.mark.parametrize("use_quant_conv", [True, False])
def test_encoder_equals_the_written_out_one(use_quant_conv: bool) -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 24, 24),
        norm_num_groups=4,
        scaling_factor=0.25,
        use_quant_conv=use_quant_conv,
        use_post_quant_conv=use_quant_conv,
    ).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        maps, mean, sigma = hand_written_encoder(vae, images)
    features = PortraitEncoder(vae, 32).encode(images)
    torch.testing.assert_close(features.latent, mean * 0.25)
    for level, expected in zip(features.levels, maps[:3], strict=True):
        torch.testing.assert_close(level, expected)
    assert [tuple(level.shape[1:]) for level in features.levels] == [
        (8, 32, 32),
        (16, 16, 16),
        (24, 8, 8),
    ]
    # The posterior is Gaussian: mean and spread of many draws.
    draws = PortraitEncoder(vae, 32).encode(
        images[:1].expand(400, -1, -1, -1), torch.Generator().manual_seed(0)
    )
    spread = draws.latent.std(dim=0) / (sigma[0] * 0.25)
    assert abs(float(spread.mean()) - 1) < 0.02
    kurtosis = ((draws.latent - draws.latent.mean(0)) ** 4).mean() / (
        ((draws.latent - draws.latent.mean(0)) ** 2).mean() ** 2
    )
    # Uniform noise would give 1.8; equal spreads give 3.
    assert float(kurtosis) > 2.5


def test_portrait_tensor_composites_on_white_and_keeps_values() -> None:
    image = np.zeros((4, 4, 4), np.uint8)
    image[..., 0] = 200
    image[0, 0, 3] = 255
    image[0, 1, 3] = 51
    pixels = portrait_tensor(image, 4)
    assert pixels[:, 0, 0].tolist() == pytest.approx([200 / 255, 0, 0])
    assert pixels[:, 0, 1].tolist() == pytest.approx([0.2 * 200 / 255 + 0.8, 0.8, 0.8])
    assert pixels[:, 3, 3].tolist() == [1, 1, 1]
    with pytest.raises(UserError, match="not square"):
        portrait_tensor(np.zeros((4, 6, 3), np.uint8), 4)


def test_batches_and_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    features = PortraitFeatures(
        torch.randn(2, 4, 2, 2),
        (torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4), torch.randn(2, 6, 2, 2)),
    )
    again = PortraitFeatures.stack([features[0], features[1]])
    assert torch.equal(again.levels[1], features.levels[1])
    features[1].save(tmp_path / "a.safetensors")
    loaded = PortraitFeatures.load(tmp_path / "a.safetensors")
    assert torch.equal(loaded.levels[0], features.levels[0][1:].half().float())
    assert loaded.image_size == 8 and [x.shape[1] for x in loaded.levels] == [3, 5, 6]
    with pytest.raises(UserError, match="half precision"):
        PortraitFeatures(features.latent[:1] * 1e6, features[0].levels).save(tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_batches_of_one_and_three_agree(
    tiny_views: MultiViewSet, tiny_vae: Path, tmp_path: Path
) -> None:
    """But for the order of sums: by a step of the half precision that features are stored in."""
    stores = []
    for size in (1, 3):
        folder = tmp_path / str(size)
        encode_features(
            EncodeFeaturesConfig(
                root=tiny_views.root,
                vae=str(tiny_vae),
                output_dir=folder,
                image_size=32,
                batch_size=size,
                device="cpu",
            )
        )
        stores.append(FeatureSet.open(folder))
    one, three = stores
    assert one.names == three.names and len(one.names) > 3
    for name in one.names:
        a, b = one.load(name), three.load(name)
        for left, right in zip((a.latent, *a.levels), (b.latent, *b.levels), strict=True):
            torch.testing.assert_close(left, right, rtol=2**-10, atol=1e-4)


def test_stage_resumes_and_skips(tiny_views: MultiViewSet, tiny_vae: Path, tmp_path: Path) -> None:
    config = EncodeFeaturesConfig(
        output_dir=tmp_path, vae=str(tiny_vae), root=tiny_views.root, image_size=32, end_idx=2
    )
    encode_features(config)
    store = FeatureSet.open(tmp_path)
    assert store.names == tiny_views.names[:2]
    before = store.path(store.names[0]).stat().st_mtime_ns
    config.end_idx = None
    encode_features(config)
    assert store.names == tiny_views.names
    assert store.path(store.names[0]).stat().st_mtime_ns == before
    encoder = PortraitEncoder(tiny_vae, 32)
    name = store.names[3]
    expected = encoder.encode_portraits([tiny_views.portrait(name)])
    torch.testing.assert_close(
        store.load(name).latent, expected.latent.half().float(), atol=1e-3, rtol=1e-2
    )
    config.image_size = 16
    with pytest.raises(UserError, match="image_size"):
        encode_features(config)


def test_stage_reads_picture_folders(tiny_vae: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(pictures / "me.jpg")
    config = EncodeFeaturesConfig(
        output_dir=tmp_path / "out", vae=str(tiny_vae), portraits=pictures, image_size=32
    )
    encode_features(config)
    store = FeatureSet.open(tmp_path / "out")
    assert store.names == ["me"]
    before = store.load("me").latent
    # Another picture of the same name gets features of its own.
    Image.fromarray(np.full((40, 40, 3), 10, np.uint8)).save(pictures / "me.jpg")
    encode_features(config)
    assert not torch.equal(store.load("me").latent, before)
    (pictures / "you.png").write_bytes(b"no picture")
    with pytest.raises(PartialFailure, match=r"you\.png is not a readable picture"):
        encode_features(config)
    assert FeatureSet.open(tmp_path / "out").names == ["me"]


def test_portraits_are_turned_upright(tmp_path: Path) -> None:
    """A phone's picture: rows as the sensor lay, and the tag that says turn it a quarter."""
    upright = np.zeros((8, 8, 3), np.uint8)
    upright[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / "me.png", exif=exif)
    assert np.array_equal(read_picture(tmp_path / "me.png"), upright)


def test_damaged_features_are_refused(tiny_features: FeatureSet, tmp_path: Path) -> None:
    store = FeatureSet.create(
        tmp_path, {k: v for k, v in tiny_features.manifest.items() if k != "format"}
    )
    name = tiny_features.names[0]
    whole = tiny_features.path(name).read_bytes()
    store.put(name, tiny_features.load(name))
    store.path(name).write_bytes(whole[:100])
    with pytest.raises(UserError, match=name):
        store.load(name)
    features = tiny_features.load(name)
    store.put(name, PortraitFeatures(features.latent[:, :, :4], features.levels))
    with pytest.raises(UserError, match="holds latent of shape .* is expected"):
        store.load(name)
    with pytest.raises(UserError, match="no features of nobody"):
        store.load("nobody")


def test_missing_vae_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no VAE folder"):
        load_vae(str(tmp_path / "nothing"))
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    with pytest.raises(UserError, match="diffusion_pytorch_model.safetensors"):
        load_vae(str(tmp_path))

    def no_network(*_args, **_kwargs):
        raise OSError("no network")

    monkeypatch.setattr(AutoencoderKL, "from_pretrained", no_network)
    with pytest.raises(UserError, match="on a machine with network, put both into one folder"):
        load_vae("stabilityai/sdxl-vae")
