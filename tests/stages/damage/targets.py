"""What is damaged, and the command that reads it then."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from captures.cameras import look_at
from tests.stages.conftest import Chain

Command = Callable[["World", Path], list[str]]
QUICK = ["--rounds", "1", "--inner_steps", "1"]


@dataclass(frozen=True)
class Target:
    """Files of one format.

    Attributes:
        files: pattern below the world's folder.
        command: (the world, an output folder) → arguments.
        resumed: folder of ``out`` that the command goes on with, so that it needs a copy.
    """

    files: str
    command: Command
    resumed: str = ""


def stage(name: str, *more: str) -> Command:
    return lambda world, out: [*world.arguments(name, out), *more]


def resume(name: str, *more: str) -> Command:
    # A run goes on with the inputs that it was begun with.
    return lambda world, out: [*world.begun.arguments(name, world.out / name), *more]


def doctor(world: World, out: Path) -> list[str]:
    return ["doctor", str(world.root), "--no_geometry"]


def render(file: str) -> Command:
    def command(world: World, out: Path) -> list[str]:
        views = ["--views.size", "8", "--views.frames", "0", "--views.azimuths", "0"]
        decoder = ["--decoder", str(world.out / "fit-decoder" / "decoder")]
        path = str(world.root.parent / file)
        march = ["--views.march.steps", "8", "--views.march.grid", "8", "--device", "cpu"]
        return ["render", "--triplane", path, "--output_dir", str(out), *views, *march, *decoder]

    return command


def importer(kind: str, *more: str) -> Command:
    def command(world: World, out: Path) -> list[str]:
        source = str(world.root.parent / kind)
        return ["studio", f"import-{kind}", "--source", source, "--output_dir", str(out), *more]

    return command


def portraits(world: World, out: Path) -> list[str]:
    arguments = world.arguments("encode-features", out)
    at = arguments.index("--root")
    return [*arguments[:at], "--portraits", str(world.root.parent / "photos"), *arguments[at + 2 :]]


FITTED = "out/fit-triplanes"
MODEL = "out/train-base/snapshots/model"
VAE = "out/train-vae/snapshots/model"
MESHES = ("--n_views", "1", "--size", "8", "--supersampling", "1", "--no_relight")
TARGETS = [
    Target("set/dataset.json", doctor),
    Target("set/dataset.json", stage("fit-decoder", *QUICK)),
    Target("set/blue/metadata_*.json", doctor),
    Target("set/blue/metadata_*.json", stage("fit-decoder", *QUICK)),
    Target("set/blue/img_*.png", doctor),
    Target("set/blue/img_*.png", stage("fit-decoder", *QUICK)),
    Target("set/blue/img_*0.png", stage("encode-features")),
    Target("configs/fit-decoder.yaml", stage("fit-decoder", *QUICK)),
    Target("out/fit-decoder/manifest.json", stage("fit-triplanes", "--iterations", "1")),
    Target("out/fit-decoder/decoder/*", stage("fit-triplanes", "--iterations", "1")),
    Target("out/fit-decoder/triplanes/*", stage("fit-triplanes", "--iterations", "1")),
    Target(f"{FITTED}/triplanes/blue.*", render(f"{FITTED}/triplanes/blue.safetensors")),
    Target(f"{FITTED}/manifest.json", render(f"{FITTED}/triplanes/blue.safetensors")),
    Target("out/fit-decoder/decoder/*", render("blue.npy")),
    Target("blue.npy", render("blue.npy")),
    Target("out/encode-features/manifest.json", stage("sample-base")),
    Target("out/encode-features/features/*", stage("sample-base")),
    Target(f"{MODEL}/*.json", stage("sample-base")),
    Target(f"{MODEL}/scheduler/*", stage("sample-base")),
    Target(f"{MODEL}/unet/*", stage("sample-base")),
    Target(f"{MODEL}/normalization/*", stage("sample-base")),
    Target(f"{VAE}/*", stage("encode-features")),
    Target("photos/*", portraits),
    Target("out/train-base/config.yaml", resume("train-base", "--steps", "7"), "train-base"),
    Target("out/train-base/stats.jsonl", resume("train-base", "--steps", "7"), "train-base"),
    Target("out/train-base/state/*/*", resume("train-base", "--steps", "7"), "train-base"),
    Target("out/fit-decoder/config.yaml", resume("fit-decoder"), "fit-decoder"),
    Target("out/fit-decoder/state/*.pt", resume("fit-decoder"), "fit-decoder"),
    Target("out/fit-decoder/state/subjects/*", resume("fit-decoder"), "fit-decoder"),
    Target("transforms/anna/*.json", importer("transforms")),
    Target("transforms/anna/*.png", importer("transforms")),
    Target("colmap/anna/sparse/*.txt", importer("colmap", "--front=-y", "--size", "16")),
    Target("colmap/anna/images/*", importer("colmap", "--front=-y", "--size", "16")),
    Target("meshes/*.obj", importer("meshes", *MESHES)),
    Target("meshes/*.ply", importer("meshes", *MESHES)),
]


def add_foreign_files(world: Chain) -> None:
    """Write beside the chain's folders what only importers and other readers take."""
    base = world.root.parent
    planes = np.zeros((3, 1, 8, 4, 4), np.float32)
    np.save(base / "blue.npy", planes)
    (base / "photos").mkdir()
    portrait = Image.open(world.root / "blue" / "img_proc_fg_000000.png")
    portrait.save(base / "photos" / "blue.png")
    eyes = torch.tensor([[6.0, 0, 2], [0, -6, 0], [-4, 4, 1.0]])
    c2w = look_at(eyes, torch.tensor([0.0, 0, 1]), torch.tensor([0.0, 0, 1])).double().numpy()
    _write_transforms(base / "transforms" / "anna", c2w)
    _write_colmap(base / "colmap" / "anna", c2w)
    _write_meshes(base / "meshes")


def _write_transforms(folder: Path, c2w: np.ndarray) -> None:
    folder.mkdir(parents=True)
    frames = []
    for i, matrix in enumerate(c2w):
        opengl = matrix @ np.diag([1.0, -1, -1, 1])
        frames.append({"file_path": f"./v{i}", "transform_matrix": opengl.tolist()})
        Image.new("RGBA", (16, 16), (i, 0, 0, 255)).save(folder / f"v{i}.png")
    content = {"camera_angle_x": 0.5, "w": 16, "h": 16, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content))


def _write_colmap(folder: Path, c2w: np.ndarray) -> None:
    (folder / "images").mkdir(parents=True)
    (folder / "sparse").mkdir()
    lines = []
    for i, matrix in enumerate(c2w):
        rotation, position = matrix[:3, :3].T, matrix[:3, 3]
        w = np.sqrt(max(0.0, 1 + np.trace(rotation))) / 2
        x, y, z = (rotation[a, b] - rotation[b, a] for a, b in ((2, 1), (0, 2), (1, 0)))
        quaternion = np.array([w, x / (4 * w), y / (4 * w), z / (4 * w)])
        values = [*quaternion, *(-rotation @ position)]
        lines += [f"{i + 1} {' '.join(f'{v:.9f}' for v in values)} 1 v{i}.png", ""]
        Image.new("RGBA", (16, 16), (i, 0, 0, 255)).save(folder / "images" / f"v{i}.png")
    (folder / "sparse" / "images.txt").write_text("\n".join(lines) + "\n")
    (folder / "sparse" / "cameras.txt").write_text("1 PINHOLE 16 16 30 30 8 8\n")
    points = np.random.default_rng(0).normal(size=(20, 3))
    rows = [f"{i} {x:.6f} {y:.6f} {z:.6f} 0 0 0 0" for i, (x, y, z) in enumerate(points)]
    (folder / "sparse" / "points3D.txt").write_text("\n".join(rows) + "\n")


def _write_meshes(folder: Path) -> None:
    folder.mkdir()
    corners = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    faces = [(1, 2, 3), (1, 2, 4), (1, 3, 4), (2, 3, 4)]
    lines = [f"v {x} {y} {z} 0.5 0.5 0.5" for x, y, z in corners]
    lines += [f"f {a} {b} {c}" for a, b, c in faces]
    (folder / "pyramid.obj").write_text("\n".join(lines) + "\n")
    header = "ply\nformat ascii 1.0\nelement vertex 4\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz")
    header += "".join(f"property uchar {colour}\n" for colour in ("red", "green", "blue"))
    header += "element face 4\nproperty list uchar int vertex_indices\nend_header\n"
    rows = [f"{x} {y} {z} 9 9 9" for x, y, z in corners]
    rows += [f"3 {a - 1} {b - 1} {c - 1}" for a, b, c in faces]
    (folder / "spike.ply").write_text(header + "\n".join(rows) + "\n")


@dataclass
class World(Chain):
    """A copy of the chain's folders.

    Attributes:
        begun: the chain.
    """

    begun: Chain


def own_world(world: Chain, folder: Path, resumed: str) -> World:
    """The world again, sharing all files but those of a run that is gone on with."""
    base = world.root.parent
    shutil.copytree(base, folder, copy_function=os.link)
    if resumed:
        shutil.rmtree(folder / "out" / resumed)
        shutil.copytree(base / "out" / resumed, folder / "out" / resumed)
    begun = world.begun if isinstance(world, World) else world
    return World(folder / "set", folder / "out", folder / "configs", begun)
