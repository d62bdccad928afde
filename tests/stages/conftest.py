"""A tiny world for the stages: a multi-view set of painted balls, and the whole chain over it.

The chain is run once a session, in this process, uninterrupted; tests compare with what it left.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from captures.cameras import look_at, pinhole
from captures.conventions import CONVENTIONS
from captures.description import write_description
from captures.multiview import write_view
from triavatar import cli

SUBJECTS = {
    "amber": (0.9, 0.6, 0.1),
    "blue": (0.2, 0.3, 0.9),
    "green": (0.2, 0.8, 0.3),
    "held": (0.8, 0.2, 0.5),
}
N_VIEWS = 8
TEST_VIEWS = [3, 6]
SIZE = 32


def paint_ball(color, cameras, index) -> np.ndarray:
    """A ball of radius 0.6 whose upper half is dark; alpha from 4×4 supersampling."""
    fine = cameras.scaled_to(SIZE * 4, SIZE * 4)
    origins, directions = fine.image_rays(index)
    along = -(origins * directions).sum(-1)
    inside = 0.6**2 - (origins.square().sum(-1) - along**2)
    hit = inside > 0
    points = origins + (along - inside.clamp(min=0).sqrt())[:, None] * directions
    tint = torch.where(points[:, 1:2] > 0.1, 0.2, 1.0) * torch.tensor(color)
    tint = tint * (0.6 + 0.4 * points[:, 2:3])
    alpha = hit.float()[:, None]
    layers = torch.cat([tint * alpha, alpha], -1).reshape(SIZE, 4, SIZE, 4, 4).mean((1, 3))
    color_layer = layers[..., :3] / layers[..., 3:].clamp(min=1e-6)
    rgba = torch.cat([color_layer, layers[..., 3:]], -1).clamp(0, 1)
    return (rgba * 255 + 0.5).to(torch.uint8).numpy()


def write_balls(root: Path) -> None:
    """The set: three training identities and one held out, 8 views each of which 2 held out."""
    turn = torch.arange(N_VIEWS) * (2 * math.pi / N_VIEWS)
    eye = 4.2 * torch.stack([turn.sin(), torch.full_like(turn, 0.1), turn.cos()], -1)
    cameras = pinhole(look_at(eye, torch.zeros(3)), 28.84, SIZE)
    convention = CONVENTIONS["rodinhd"]
    for name, color in SUBJECTS.items():
        for i in range(N_VIEWS):
            picture = paint_ball(color, cameras, i)
            write_view(root / name, i, picture, cameras, i, convention)
    train = [i for i in range(N_VIEWS) if i not in TEST_VIEWS]
    write_description(
        root,
        convention,
        identities={"train": ["amber", "blue", "green"], "validation": [], "test": ["held"]},
        views={"train": train, "validation": [], "test": TEST_VIEWS},
        objects={name: {"attributes": {}} for name in SUBJECTS},
        provenance={"seed": 0},
        license="CC0-1.0",
    )


FIT = {"rays": 64, "smoothness_points": 32, "steps": 48, "grid": 16}
MARCH = {"steps": 48, "grid": 16}
LOOP = {"device": "cpu", "log_every": 1, "save_every": 2, "batch_size": 2, "ema_decay": 0.5}
PATCHES = {"latent_patch": 2, "feature_patches": [8, 4, 2], "token_width": 16, "latent_width": 8}

SETTINGS = {
    "train-vae": LOOP
    | {"image_size": 32, "block_out_channels": [8, 8, 16, 16], "norm_num_groups": 4, "steps": 6}
    | {"sample_every": 0},
    "encode-features": {"image_size": 32, "batch_size": 1, "device": "cpu"},
    "fit-decoder": {"plane_size": 16, "channels": 8, "color_channels": 5, "hidden": 16}
    | {"rounds": 2, "inner_steps": 4, "fisher_batches": 2, "fit": FIT, "device": "cpu"},
    "fit-triplanes": {"iterations": 6, "save_every": 2, "fit": FIT, "device": "cpu"},
    "train-base": LOOP
    | {"plane_size": 8, "steps": 6, "sample_every": 6, "sampler": {"steps": 2}, "sample_pixels": 16}
    | {"model": PATCHES | {"width": 16, "multipliers": [1, 2], "blocks": 1}},
    "train-upsampler": LOOP
    | {"low_res_size": 8, "plane_size": 16, "steps": 6, "sample_every": 6, "sampler": {"steps": 2}}
    | {"model": PATCHES | {"width": 16, "multipliers": [1, 2], "blocks": [1, 1]}}
    | {
        "render": MARCH | {"patch_size": 8, "downscales": [2], "downscale_probabilities": [1]},
        "sample_pixels": 16,
    },
    "sample-base": {"steps": 2, "device": "cpu"},
    "sample-upsampler": {"steps": 2, "device": "cpu"},
    "generate": {
        "sampling": {"base": {"steps": 2}, "upsampler": {"steps": 2}},
        "export": [],
        "device": "cpu",
    }
    | {"views": {"size": 16, "azimuths": [0, 90], "frames": 4, "march": MARCH}},
    "evaluate": {"march": MARCH, "lpips": "off", "device": "cpu"},
}
for _stage, _heads in (("train-base", [8, 4]), ("train-upsampler", [8])):
    SETTINGS[_stage]["model"] |= {"attention_sizes": _heads, "head_channels": 8}


@dataclass
class Chain:
    """Runs stages at the tiny scale.

    Attributes:
        root: the multi-view set.
        out: folder of the uninterrupted chain's outputs.
        configs: folder of the tiny configurations.
    """

    root: Path
    out: Path
    configs: Path

    def arguments(self, stage: str, output: Path) -> list[str]:
        """The command line of a stage that reads the chain's outputs and writes ``output``."""
        out, root = str(self.out), str(self.root)
        base, upsampler = (f"{out}/{s}/snapshots/model" for s in ("train-base", "train-upsampler"))
        vae, features = f"{out}/train-vae/snapshots/model", f"{out}/encode-features"
        triplanes, decoder = f"{out}/fit-triplanes", f"{out}/fit-decoder/decoder"
        inputs = {
            "train-vae": ["--root", root],
            "encode-features": ["--root", root, "--vae", vae],
            "fit-decoder": ["--root", root],
            "fit-triplanes": ["--root", root, "--decoder", f"{out}/fit-decoder"],
            "train-base": ["--root", root, "--triplanes", triplanes, "--features", features],
            "train-upsampler": ["--root", root, "--triplanes", triplanes, "--features", features],
            "sample-base": ["--model", base, "--features", features, "--triplanes", triplanes],
            "sample-upsampler": ["--model", upsampler, "--features", features]
            + ["--triplanes", f"{out}/sample-base"],
            "generate": ["--root", root, "--vae", vae, "--base", base, "--upsampler", upsampler]
            + ["--decoder", decoder],
            "evaluate": ["--root", root, "--triplanes", f"{out}/generate"],
        }
        config = ["--config", str(self.configs / f"{stage}.yaml")]
        return [stage, *config, *inputs[stage], "--output_dir", str(output)]

    def run(self, stage: str, output: Path, *more: str) -> int:
        """Run a stage in this process; the exit status."""
        return cli.main([*self.arguments(stage, output), *more])


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Chain:
    """The set and the configurations; nothing run yet."""
    folder = tmp_path_factory.mktemp("chain")
    chain = Chain(folder / "set", folder / "out", folder / "configs")
    write_balls(chain.root)
    chain.configs.mkdir()
    for stage, values in SETTINGS.items():
        (chain.configs / f"{stage}.yaml").write_text(yaml.safe_dump(values))
    return chain


@pytest.fixture(scope="session")
def chain(world: Chain) -> Chain:
    """The set with every stage run once, uninterrupted."""
    for stage in SETTINGS:
        assert world.run(stage, world.out / stage) == 0, stage
    return world
