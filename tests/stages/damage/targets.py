"""What is damaged, and the command that reads it then."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.stages.conftest import Chain

Command = Callable[["World", Path], list[str]]
QUICK = ["--rounds", "1", "--inner_steps", "1"]


@dataclass
class World(Chain):
    """A copy of the chain's folders.

    Attributes:
        begun: the chain; its runs remember where their inputs lay.
    """

    begun: Chain


@dataclass(frozen=True)
class Target:
    """Files of one format.

    Attributes:
        files: pattern below the world's folder.
        command: (the world, an output folder) → arguments.
        resumed: folder of ``out`` that the command goes on with, so that it needs a copy.
        indexed: the model's index is written anew after the damage, so that its readers are met.
    """

    files: str
    command: Command
    resumed: str = ""
    indexed: bool = False


def stage(name: str, *more: str) -> Command:
    return lambda world, out: [*world.arguments(name, out), *more]


def resume(name: str, *more: str) -> Command:
    # A run goes on with the inputs that it was begun with.
    return lambda world, out: [*world.begun.arguments(name, world.out / name), *more]


def doctor(world: World, out: Path) -> list[str]:
    return ["doctor", str(world.root), "--no_geometry"]


TINY = ["--views.size", "8", "--views.frames", "0", "--views.azimuths", "0"]
TINY += ["--views.march.steps", "8", "--views.march.grid", "8", "--device", "cpu"]


def render(file: str) -> Command:
    def command(world: World, out: Path) -> list[str]:
        decoder = ["--decoder", str(world.out / "fit-decoder" / "decoder")]
        path = str(world.root.parent / file)
        return ["render", "--triplane", path, "--output_dir", str(out), *TINY, *decoder]

    return command


def importer(kind: str, folder: str, *more: str) -> Command:
    def command(world: World, out: Path) -> list[str]:
        source = str(world.root.parent / folder)
        return ["studio", f"import-{kind}", "--source", source, "--output_dir", str(out), *more]

    return command


def portraits(world: World, out: Path) -> list[str]:
    arguments = world.arguments("encode-features", out)
    at = arguments.index("--root")
    return [*arguments[:at], "--portraits", str(world.root.parent / "photos"), *arguments[at + 2 :]]


def photograph(world: World, out: Path) -> list[str]:
    people = str(world.root.parent / "people")
    return ["portrait", people, "--output_dir", str(out), "--size", "64"]


def generate(world: World, out: Path) -> list[str]:
    base = world.root.parent
    config = ["--config", str(world.configs / "generate.yaml"), *TINY, "--likeness", "off"]
    model = ["--model", str(base / "model"), "--output_dir", str(out), "--no_prepare"]
    return ["generate", str(base / "photos"), *config, *model]


def bundle(world: World, out: Path) -> list[str]:
    likeness = ["--likeness", str(world.root.parent / "likeness")]
    decoder = ["--decoder", str(world.out / "fit-decoder")]
    return ["bundle", *decoder, *likeness, "--output_dir", str(out / "model")]


def report(world: World, out: Path) -> list[str]:
    sets = ["--evaluation", str(world.out / "evaluate"), "--root", str(world.root)]
    return ["report", *sets, "--output", str(out / "sheet.png"), "--tile", "16"]


def train_likeness(world: World, out: Path) -> list[str]:
    triplanes = str(world.out / "fit-triplanes")
    people = ["--root", str(world.root), "--triplanes", triplanes]
    return ["train-likeness", *people, "--output_dir", str(out)]


def some_names(world: World, out: Path) -> list[str]:
    return [
        *world.arguments("encode-features", out),
        "--txt_file",
        f"{world.root.parent}/names.txt",
    ]


FITTED = "out/fit-triplanes"
MODEL = "out/train-base/snapshots/model"
UPSAMPLER = "out/train-upsampler/snapshots/model"
VAE = "out/train-vae/snapshots/model"
MESHES = ("--n_views", "1", "--size", "8", "--supersampling", "1", "--no_relight")
COLMAP = ("--front=-y", "--size", "16")
LONGER = ("--steps", "7")
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
    Target(f"{UPSAMPLER}/*.json", stage("sample-upsampler")),
    Target(f"{UPSAMPLER}/*/*", stage("sample-upsampler")),
    Target("out/sample-base/manifest.json", stage("sample-upsampler")),
    Target("out/sample-base/triplanes/*", stage("sample-upsampler")),
    Target(f"{VAE}/*", stage("encode-features")),
    Target("photos/*", portraits),
    Target("names.txt", some_names),
    Target("out/train-vae/config.yaml", resume("train-vae", *LONGER), "train-vae"),
    Target("out/train-vae/state/*/*", resume("train-vae", *LONGER), "train-vae"),
    Target("out/train-base/config.yaml", resume("train-base", *LONGER), "train-base"),
    Target("out/train-base/stats.jsonl", resume("train-base", *LONGER), "train-base"),
    Target("out/train-base/state/*/*", resume("train-base", *LONGER), "train-base"),
    Target("out/train-upsampler/state/*/*", resume("train-upsampler", *LONGER), "train-upsampler"),
    Target("out/train-upsampler/*.jsonl", resume("train-upsampler", *LONGER), "train-upsampler"),
    Target("out/fit-decoder/config.yaml", resume("fit-decoder"), "fit-decoder"),
    Target("out/fit-decoder/state/*.pt", resume("fit-decoder"), "fit-decoder"),
    Target("out/fit-decoder/state/subjects/*", resume("fit-decoder"), "fit-decoder"),
    Target(f"{FITTED}/*.*", resume("fit-triplanes"), "fit-triplanes"),
    Target(f"{FITTED}/quality/*.json", resume("fit-triplanes"), "fit-triplanes"),
    Target("out/encode-features/manifest.json", resume("encode-features"), "encode-features"),
    Target("out/sample-base/*.*", resume("sample-base"), "sample-base"),
    Target("out/generate/*.*", resume("generate"), "generate"),
    Target("out/generate/avatars/blue/*.json", resume("generate"), "generate"),
    Target("out/generate/manifest.json", stage("evaluate")),
    Target("out/generate/triplanes/*", stage("evaluate")),
    Target("out/evaluate/metrics.json", report),
    Target("out/evaluate/views/*/*", report),
    Target(f"{FITTED}/triplanes/*", train_likeness),
    Target("likeness/*", bundle),
    Target("likeness/prior/*", bundle),
    Target("model/bundle.json", generate),
    Target("model/*/*", generate),
    Target("model/likeness/*", generate, indexed=True),
    Target("model/likeness/prior/*", generate, indexed=True),
    Target("model/base/*/*", generate, indexed=True),
    Target("model/*/*.json", generate, indexed=True),
    Target("people/*", photograph),
    Target("transforms/anna/*.json", importer("transforms", "transforms")),
    Target("transforms/anna/*.png", importer("transforms", "transforms")),
    Target("colmap/anna/sparse/*.txt", importer("colmap", "colmap", *COLMAP)),
    Target("colmap/anna/images/*", importer("colmap", "colmap", *COLMAP)),
    Target("colmap-binary/anna/sparse/*", importer("colmap", "colmap-binary", *COLMAP)),
    Target("meshes/*.obj", importer("meshes", "meshes", *MESHES)),
    Target("meshes/*.ply", importer("meshes", "meshes", *MESHES)),
    Target("meshes/*.glb", importer("meshes", "meshes", *MESHES)),
]


def own_world(world: Chain, folder: Path, resumed: str) -> World:
    """The world again, sharing all files but those of a run that is gone on with."""
    base = world.root.parent
    shutil.copytree(base, folder, copy_function=os.link)
    if resumed:
        shutil.rmtree(folder / "out" / resumed)
        shutil.copytree(base / "out" / resumed, folder / "out" / resumed)
    begun = world.begun if isinstance(world, World) else world
    return World(folder / "set", folder / "out", folder / "configs", begun)


def write_index(model: Path) -> None:
    """State the hashes of a model's files as they are now."""
    path = model / "bundle.json"
    index = json.loads(path.read_text())
    for name, entry in index["files"].items():
        file = model / name
        if file.is_file() and not file.is_symlink() and file.stat().st_size < 2**30:
            content = file.read_bytes()
            entry |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    path.unlink()  # it shares its bytes with other worlds
    path.write_text(json.dumps(index))
