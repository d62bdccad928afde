"""Commands that read the files of a world: (the world, an output folder) → arguments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.stages.damage.world import World

Command = Callable[[World, Path], list[str]]
QUICK = ["--rounds", "1", "--inner_steps", "1"]
FITTED = "out/fit-triplanes"
MODEL = "out/train-base/snapshots/model"
UPSAMPLER = "out/train-upsampler/snapshots/model"
VAE = "out/train-vae/snapshots/model"
MESHES = ("--n_views", "1", "--size", "8", "--supersampling", "1", "--no_relight")
VIDEO = ("--capture.frames", "2", "--portrait.size", "64")
FRONTAL = ("--capture.frontal", "v0.png")
COLMAP = ("--front=-y", "--size", "16")
LONGER = ("--steps", "7")


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


FEW = ["--likeness.size", "16", "--likeness.rounds", "1", "--likeness.no_place"]
FEW += ["--likeness.camera.iterations", "0", "--likeness.light.direction", "0"]
FEW += ["--likeness.march.steps", "16", "--likeness.march.grid", "8", "--likeness.sides.size", "16"]
FEW += ["--likeness.sides.azimuths", "0", "--likeness.sides.elevations", "0"]
FEW += ["--likeness.coefficients.newton_steps", "1", "--likeness.coefficients.steps", "1"]
FEW += ["--likeness.planes.steps", "1", "--likeness.planes.size", "16"]


def likeness(world: World, out: Path) -> list[str]:
    command = generate(world, out)
    at = command.index("off")
    return [*command[:at], "full", *command[at + 1 :], *FEW]


def fit(source: str, *more: str) -> Command:
    """One person's avatar from what lies in ``source``."""
    few = ["--several.rounds", "1", "--several.steps", "1", "--several.plane_steps", "1"]

    def command(world: World, out: Path) -> list[str]:
        base = world.root.parent
        model = ["--model", str(base / "model"), "--output_dir", str(out)]
        return ["fit", str(base / source), *model, *TINY, *FEW, *few, *more]

    return command


def moving(world: World, out: Path) -> list[str]:
    base = world.root.parent
    face = ["--clip", str(base / "clip.csv"), "--rig", str(base / "rig")]
    return [*render(f"{FITTED}/triplanes/blue.safetensors")(world, out), *face]


def rigged(world: World, out: Path) -> list[str]:
    rig = ["--rig", str(world.root.parent / "rig")]
    return [*bundle(world, out), *rig]


def pack(world: World, out: Path) -> list[str]:
    triplanes = str(world.out / "fit-triplanes")
    return ["triplanes", "pack", "--triplanes", triplanes, "--output_dir", str(out)]


def bundle(world: World, out: Path) -> list[str]:
    likeness = ["--likeness", str(world.root.parent / "likeness")]
    decoder = ["--decoder", str(world.out / "fit-decoder")]
    return ["bundle", *decoder, *likeness, "--output_dir", str(out / "model")]


def report(world: World, out: Path) -> list[str]:
    sets = ["--evaluation", str(world.out / "evaluate"), "--root", str(world.root)]
    return ["report", *sets, "--output", str(out / "sheet.png"), "--tile", "16"]


def train_likeness(world: World, out: Path, triplanes: Path | None = None) -> list[str]:
    people = [
        "--root",
        str(world.root),
        "--triplanes",
        str(triplanes or world.out / "fit-triplanes"),
    ]
    return ["train-likeness", *people, "--encoder.epochs", "2", "--output_dir", str(out)]


def packed(world: World, out: Path) -> list[str]:
    return train_likeness(world, out, world.root.parent / "packed")


def streamed(world: World, out: Path) -> list[str]:
    arguments = world.arguments("train-base", out)
    arguments[arguments.index("--triplanes") + 1] = str(world.root.parent / "packed")
    return [*arguments, "--steps", "1"]


def some_names(world: World, out: Path) -> list[str]:
    return [
        *world.arguments("encode-features", out),
        "--txt_file",
        f"{world.root.parent}/names.txt",
    ]
