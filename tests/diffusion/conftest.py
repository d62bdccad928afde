"""Tiny data: subjects that are coloured balls, with their triplanes and portrait features."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from captures.cameras import orbit_cameras
from captures.conventions import CONVENTIONS
from captures.description import write_description
from captures.multiview import MultiViewSet, write_view
from diffusion.conditioning.encode_features import feature_manifest
from diffusion.conditioning.feature_set import FeatureSet
from diffusion.conditioning.features import PortraitEncoder, portrait_tensor
from renderer.decoder import TriplaneDecoder
from renderer.fitted_set import FittedSet

SUBJECTS = ["s0", "s1", "s2", "s3", "held"]
COLORS = [(220, 40, 40), (40, 200, 40), (40, 40, 220), (200, 200, 30), (90, 90, 90)]
IMAGE = 32
PLANE = 16
CHANNELS = 8


def ball(color: tuple[int, int, int], radius: float, size: int) -> np.ndarray:
    """RGBA picture of a disc."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    inside = (axis[:, None] ** 2 + axis[None] ** 2 < radius**2)[..., None]
    picture = np.zeros((size, size, 4), np.uint8)
    picture[..., :3] = np.where(inside, np.array(color, np.uint8), 0)
    picture[..., 3:] = np.where(inside, 255, 0)
    return picture


def make_vae(seed: int = 0) -> AutoencoderKL:
    """An untrained VAE of 3 blocks; its latent is a quarter of the picture's size."""
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=0.5,
    )
    return vae.eval()


@pytest.fixture(scope="session")
def tiny_views(tmp_path_factory: pytest.TempPathFactory) -> MultiViewSet:
    """Five subjects (the last held out), six views each (frame 5 held out), 32² pixels."""
    root = tmp_path_factory.mktemp("views")
    convention = CONVENTIONS["rodinhd"]
    cameras = orbit_cameras(6, size=IMAGE)
    for index, name in enumerate(SUBJECTS):
        for frame in range(6):
            picture = ball(COLORS[index], 0.5 + 0.05 * frame, IMAGE)
            write_view(root / name, frame, picture, cameras, frame, convention)
    write_description(
        root,
        convention,
        identities={"train": SUBJECTS[:4], "test": ["held"]},
        views={"train": [0, 1, 2, 3, 4], "test": [5]},
        objects={name: {} for name in SUBJECTS},
        provenance={"seed": 0},
        license="CC0-1.0",
    )
    return MultiViewSet(root)


@pytest.fixture(scope="session")
def tiny_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an untrained AutoencoderKL."""
    folder = tmp_path_factory.mktemp("vae")
    make_vae().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_fitted(tmp_path_factory: pytest.TempPathFactory) -> FittedSet:
    """Smooth random triplanes [3, 8, 16, 16] of all subjects with an untrained decoder."""
    torch.manual_seed(1)
    decoder = TriplaneDecoder(channels=CHANNELS, color_channels=6, hidden=16)
    folder = tmp_path_factory.mktemp("fitted")
    fitted = FittedSet.create(folder, decoder, (3, CHANNELS, PLANE, PLANE))
    for name in SUBJECTS:
        coarse = torch.randn(3, CHANNELS, 4, 4) * 0.3
        fitted.put(name, torch.nn.functional.interpolate(coarse, (PLANE, PLANE), mode="bicubic"))
    return fitted


@pytest.fixture(scope="session")
def tiny_features(
    tmp_path_factory: pytest.TempPathFactory, tiny_vae: Path, tiny_views: MultiViewSet
) -> FeatureSet:
    """Features of all subjects' portraits at 32² pixels."""
    encoder = PortraitEncoder(tiny_vae, IMAGE)
    portraits = [portrait_tensor(tiny_views.portrait(name), IMAGE) for name in SUBJECTS]
    features = encoder.encode(torch.stack(portraits))
    folder = tmp_path_factory.mktemp("features")
    store = FeatureSet.create(folder, feature_manifest(encoder, features))
    for index, name in enumerate(SUBJECTS):
        store.put(name, features[index])
    return store
