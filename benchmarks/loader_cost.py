"""CPU seconds that a training sample of the published base model costs to load.

Run from the source folder; the first run writes three people of the published sizes (512² planes,
features of 256² portraits), 250 MB:
  PYTHONPATH=. python benchmarks/loader_cost.py --data runs/loader_cost

Portraits come as stored features, and as bytes (what --vae has, whose network works on the GPU).
The first pass shrinks the planes for good, the second reads what the first left.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from diffusion.conditioning.feature_set import FeatureSet
from diffusion.conditioning.features import PortraitFeatures
from diffusion.data.pairs import DenoisingDataset, PairedSet
from diffusion.data.portraits import StoredPortraits
from renderer.decoder import TriplaneDecoder
from renderer.fitted_set import FittedSet

NAMES = ["p0", "p1", "p2"]
MAPS = ((128, 256), (256, 128), (512, 64))
"""Channels and sizes of the SDXL VAE's feature maps of 256²."""


class Bytes(StoredPortraits):
    """Portraits in bytes."""

    def draw(self, name, random, mirrored=False):
        return torch.zeros(1, 3, 256, 256, dtype=torch.uint8)


def write_people(folder: Path) -> None:
    """Random planes and features of the published sizes."""
    fitted = FittedSet.create(folder / "fitted", TriplaneDecoder(), (3, 32, 512, 512))
    manifest = {
        "vae_hash": "none",
        "scaling_factor": 0.13,
        "image_size": 256,
        "latent_shape": [4, 32, 32],
        "level_shapes": [[channels, size, size] for channels, size in MAPS],
    }
    features = FeatureSet.create(folder / "features", manifest)
    for name in NAMES:
        fitted.put(name, torch.randn(3, 32, 512, 512) * 0.2)
        levels = tuple(torch.randn(1, channels, size, size) for channels, size in MAPS)
        features.put(name, PortraitFeatures(torch.randn(1, 4, 32, 32), levels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder for the three people")
    folder = parser.parse_args().data
    torch.set_num_threads(1)
    if not (folder / "fitted" / "triplanes" / f"{NAMES[-1]}.safetensors").exists():
        write_people(folder)
    fitted, features = FittedSet.open(folder / "fitted"), FeatureSet.open(folder / "features")
    for label, kind in (("stored features", StoredPortraits), ("portraits in bytes", Bytes)):
        pairs = PairedSet(fitted, kind(features, 0.0), NAMES, (128,))
        problems = DenoisingDataset(pairs, 1000, 0.2, 0, "base")
        for passes, places in (("first", range(3)), ("second", range(3, 12))):
            begun = time.process_time()
            for place in places:
                problems[place]
            each = (time.process_time() - begun) / len(places)
            print(f"{label}, {passes} pass: {each:.4f} CPU seconds a sample")


if __name__ == "__main__":
    main()
