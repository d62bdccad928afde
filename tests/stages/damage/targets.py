"""What is damaged, and the command that reads it then."""

from __future__ import annotations

from dataclasses import dataclass

from tests.stages.damage.commands import (
    COLMAP,
    FITTED,
    FRONTAL,
    LONGER,
    MESHES,
    MODEL,
    QUICK,
    UPSAMPLER,
    VAE,
    VIDEO,
    Command,
    bundle,
    doctor,
    fit,
    generate,
    importer,
    likeness,
    moving,
    packed,
    photograph,
    portraits,
    render,
    report,
    resume,
    rigged,
    some_names,
    stage,
    streamed,
    train_likeness,
)


@dataclass(frozen=True)
class Target:
    """Files of one format.

    Attributes:
        files: pattern below the world's folder.
        command: (the world, an output folder) → arguments.
        resumed: folder of ``out`` that the command goes on with, so that it needs a copy.
        indexed: the model's index is written anew after the damage, so that its readers are met.
        dear: the command takes seconds.
    """

    files: str
    command: Command
    resumed: str = ""
    indexed: bool = False
    dear: bool = False


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
    Target("people/*", photograph, dear=True),
    Target("transforms/anna/*.json", importer("transforms", "transforms")),
    Target("transforms/anna/*.png", importer("transforms", "transforms")),
    Target("colmap/anna/sparse/*.txt", importer("colmap", "colmap", *COLMAP)),
    Target("colmap/anna/images/*", importer("colmap", "colmap", *COLMAP)),
    Target("colmap-binary/anna/sparse/*", importer("colmap", "colmap-binary", *COLMAP)),
    Target("meshes/*.obj", importer("meshes", "meshes", *MESHES)),
    Target("meshes/*.ply", importer("meshes", "meshes", *MESHES)),
    Target("meshes/*.glb", importer("meshes", "meshes", *MESHES)),
    Target("model/likeness/*", likeness, indexed=True, dear=True),
    Target("model/likeness/prior/*", likeness, indexed=True, dear=True),
    Target("set/blue/*", fit("set/blue"), dear=True),
    Target("transforms/anna/*", fit("transforms/anna"), dear=True),
    Target("colmap/anna/*/*", fit("colmap/anna", "--capture.front=-y", *FRONTAL), dear=True),
    Target("meshes/*.glb", fit("meshes/tooth.glb", "--capture.views", "4"), dear=True),
    Target("video/*.mp4", fit("video/eileen.mp4", *VIDEO), dear=True),
    Target("rig/*", rigged),
    Target("rig/*.safetensors", moving, dear=True),
    Target("clip.csv", moving, dear=True),
    Target("packed/*.*", packed),
    Target("packed/*.*", streamed),
]
