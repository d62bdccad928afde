"""Files beside the chain's folders: captures, meshes and photographs of others, and a model."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import torch
import trimesh
from PIL import Image

from captures.cameras import look_at
from tests.conftest import PROJECT
from tests.stages.conftest import Chain
from triavatar import cli


def add_foreign_files(world: Chain) -> None:
    """Write beside the chain's folders what only importers and other readers take."""
    base = world.root.parent
    planes = np.zeros((3, 1, 8, 4, 4), np.float32)
    np.save(base / "blue.npy", planes)
    (base / "names.txt").write_text("amber\nblue\n")
    (base / "photos").mkdir()
    portrait = Image.open(world.root / "blue" / "img_proc_fg_000000.png")
    portrait.save(base / "photos" / "blue.png")
    (base / "people").mkdir()
    shutil.copyfile(PROJECT / "data" / "portraits" / "collins.jpg", base / "people" / "eileen.jpg")
    eyes = torch.tensor([[6.0, 0, 2], [0, -6, 0], [-4, 4, 1.0]])
    c2w = look_at(eyes, torch.tensor([0.0, 0, 1]), torch.tensor([0.0, 0, 1])).double().numpy()
    _write_transforms(base / "transforms" / "anna", c2w)
    _write_colmap(base / "colmap" / "anna", c2w)
    _write_colmap_binary(base / "colmap" / "anna", base / "colmap-binary" / "anna")
    _write_meshes(base / "meshes")
    _write_model(world, base)
    _write_video(base / "people" / "eileen.jpg", base / "video" / "eileen.mp4")
    shutil.copytree(PROJECT / "data" / "bundle" / "rig", base / "rig")
    (base / "clip.csv").write_text("Timecode,BlendShapeCount,JawOpen,HeadYaw\n0,52,0.5,4\n")
    source, packed = str(world.out / "fit-triplanes"), str(base / "packed")
    assert cli.main(["triplanes", "pack", "--triplanes", source, "--output_dir", packed]) == 0


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


def _write_colmap_binary(text: Path, folder: Path) -> None:
    """The same model as COLMAP writes it by default."""
    shutil.copytree(text / "images", folder / "images")
    sparse = folder / "sparse"
    sparse.mkdir()
    camera = struct.pack("<iiQQ4d", 1, 1, 16, 16, 30, 30, 8, 8)
    (sparse / "cameras.bin").write_bytes(struct.pack("<Q", 1) + camera)
    images = b""
    lines = (text / "sparse" / "images.txt").read_text().splitlines()[::2]
    for line in lines:
        number, *pose, camera_number, name = line.split()
        images += struct.pack("<i7di", int(number), *map(float, pose), int(camera_number))
        images += name.encode() + b"\0" + struct.pack("<QddQ", 1, 3.0, 4.0, 0)
    (sparse / "images.bin").write_bytes(struct.pack("<Q", len(lines)) + images)
    rows = (text / "sparse" / "points3D.txt").read_text().splitlines()
    points = b""
    for row in rows:
        number, *place = row.split()[:4]
        points += struct.pack("<Q3d3BdQii", int(number), *map(float, place), 1, 2, 3, 0.5, 1, 1, 0)
    (sparse / "points3D.bin").write_bytes(struct.pack("<Q", len(rows)) + points)


def _write_meshes(folder: Path) -> None:
    folder.mkdir()
    corners = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    faces = [(1, 2, 3), (1, 2, 4), (1, 3, 4), (2, 3, 4)]
    lines = [f"v {x} {y} {z} 0.5 0.5 0.5" for x, y, z in corners]
    lines += [f"vt {x} {y}" for x, y, _ in corners]
    lines += [f"f {a}/{a} {b}/{b} {c}/{c}" for a, b, c in faces]
    (folder / "pyramid.obj").write_text("\n".join(lines) + "\n")
    header = "ply\nformat ascii 1.0\nelement vertex 4\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz")
    header += "".join(f"property uchar {colour}\n" for colour in ("red", "green", "blue"))
    header += "element face 4\nproperty list uchar int vertex_indices\nend_header\n"
    rows = [f"{x} {y} {z} 9 9 9" for x, y, z in corners]
    rows += [f"3 {a - 1} {b - 1} {c - 1}" for a, b, c in faces]
    (folder / "spike.ply").write_text(header + "\n".join(rows) + "\n")
    seen = trimesh.visual.TextureVisuals(
        uv=np.array(corners, float)[:, :2],
        material=trimesh.visual.material.PBRMaterial(
            baseColorTexture=Image.new("RGB", (4, 4), (200, 90, 30))
        ),
    )
    zero = np.array(faces) - 1
    trimesh.Trimesh(corners, zero, visual=seen, process=False).export(folder / "tooth.glb")


def _write_video(picture: Path, video: Path) -> None:
    video.parent.mkdir()
    frame = np.ascontiguousarray(Image.open(picture).convert("RGB").resize((320, 320)))
    writer = imageio_ffmpeg.write_frames(str(video), (320, 320), fps=4, macro_block_size=2)
    writer.send(None)
    for _ in range(4):
        writer.send(frame)
    writer.close()


def _write_model(world: Chain, base: Path) -> None:
    """A model of the chain's parts, and what likeness learns of its people."""
    out = world.out
    people = ["--root", str(world.root), "--triplanes", str(out / "fit-triplanes")]
    learnt = str(base / "likeness")
    assert (
        cli.main(["train-likeness", *people, "--encoder.epochs", "2", "--output_dir", learnt]) == 0
    )
    flags = ["--decoder", str(out / "fit-decoder"), "--base", str(out / "train-base")]
    flags += ["--upsampler", str(out / "train-upsampler"), "--likeness", learnt]
    flags += ["--vae", str(out / "train-vae" / "snapshots" / "model")]
    assert cli.main(["bundle", *flags, "--output_dir", str(base / "model")]) == 0
