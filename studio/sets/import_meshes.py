"""Import of textured meshes (GLB, OBJ, …): each file is lit and rendered as a subject."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from captures.conventions import named_convention
from captures.imports.imported_set import (
    AXES,
    begin_import,
    check_test_subjects,
    describe_import,
)
from captures.multiview import write_view
from runtime.config import check_settings, setting
from runtime.errors import UserError
from runtime.files import check_file
from runtime.picture_files import MOST_PIXELS
from runtime.progress import progress
from studio.drawing.scene import Part, flatten
from studio.drawing.textures import Texture, build_mips, solid_texture

MOST_BYTES = 2**29
"""Of a mesh file; read, it takes several times that in memory."""
SUFFIXES = (".glb", ".gltf", ".obj", ".ply")
COMPRESSIONS = {
    "KHR_draco_mesh_compression": "Draco",
    "EXT_meshopt_compression": "meshopt",
    "KHR_texture_basisu": "Basis textures",
}


@dataclass
class ImportMeshesConfig:
    """Render a folder of textured meshes to a multi-view set."""

    source: Path
    """Folder with one .glb, .gltf, .obj or .ply file for each subject, or one such file."""
    output_dir: Path
    """The set to write."""
    up: Literal["+x", "-x", "+y", "-y", "+z", "-z"] = "+y"
    """The files' direction that points up; glTF's is +y."""
    front: Literal["+x", "-x", "+y", "-y", "+z", "-z"] = "+z"
    """The files' direction in which the subjects look; glTF's is +z."""
    scale: float = setting(0.0, at_least=0)
    """World units per file unit; 0 fits every mesh to the box."""
    n_views: int = setting(64, at_least=1, at_most=10**6)
    """Views of each subject; view 0 is the frontal portrait."""
    size: int = setting(256, at_least=1, at_most=8192)
    """Picture width and height in pixels."""
    supersampling: int = setting(3, at_least=1, at_most=8)
    """Samples a side of every pixel."""
    relight: bool = True
    """Bake soft studio light; off for meshes whose textures hold their light."""
    test_subjects: int = 0
    """How many subjects, the last ones, are held out as test identities."""
    test_view_every: int = 6
    """One of so many views (never view 0) is held out for testing; 0 holds out none."""
    license: str = "unknown"
    """SPDX identifier of the meshes' licence."""


def import_meshes(config: ImportMeshesConfig) -> None:
    """Render every mesh of the folder.

    Raises:
        UserError: nothing to import, an unreadable mesh, or one without texture or colours.
    """
    from studio.drawing.raster import Camera, draw
    from studio.looks.head_rig import head_rig
    from studio.looks.lighting import bake_light

    source = config.source
    inside = [source] if source.is_file() else sorted(source.glob("*"))
    files = [path for path in inside if path.suffix.lower() in SUFFIXES]
    if not files:
        raise UserError(f"no mesh ({', '.join(SUFFIXES)}) in {config.source}")
    check_settings(config)
    by_name: dict[str, Path] = {}
    for path in files:
        if path.stem in by_name:
            raise UserError(f"{path} and {by_name[path.stem]} have the same name: rename one")
        by_name[path.stem] = path
    check_test_subjects(config.test_subjects, len(files))
    begin_import(config, "studio import-meshes")
    rig = head_rig(config.n_views, config.size)
    convention = named_convention("house")
    for path in progress(files, desc="import", unit="mesh"):
        parts = mesh_parts(path, config)
        if config.relight:
            bake_light(parts)
        scene = flatten(parts)
        for view in range(config.n_views):
            image = draw(scene, Camera.of(rig, view), config.supersampling)
            write_view(config.output_dir / path.stem, view, image, rig, view, convention)
    describe_import(
        config.output_dir,
        convention,
        list(by_name),
        config.n_views,
        source="meshes",
        license=config.license,
        test_subjects=config.test_subjects,
        test_view_every=config.test_view_every,
    )


def mesh_parts(path: Path, config: ImportMeshesConfig) -> list[Part]:
    """The parts of one file in our world."""
    try:
        import trimesh
    except ImportError as error:
        raise UserError("importing meshes needs trimesh: pip install trimesh") from error
    try:
        check_file(path, MOST_BYTES)
        refuse_compressed(path)
        refuse_no_numbers(path)
        loaded = trimesh.load(path, process=False)
        scene = loaded if isinstance(loaded, trimesh.Scene) else trimesh.Scene(loaded)
        meshes = [m for m in scene.dump() if isinstance(m, trimesh.Trimesh) and len(m.faces)]
    except UserError:
        raise
    except Exception:  # trimesh raises whatever its many readers raise
        raise UserError(f"mesh {path} cannot be read; export it again, e.g. as .glb") from None
    if not meshes:
        raise UserError(f"mesh {path} has no faces")
    up, front = (np.array(AXES[name], dtype=float) for name in (config.up, config.front))
    if abs(up @ front) > 0.5:
        raise UserError(f"up '{config.up}' and front '{config.front}' are parallel")
    axes = np.stack([np.cross(up, front), up, front])
    places = [np.asarray(mesh.vertices) @ axes.T for mesh in meshes]
    for mesh, points in zip(meshes, places, strict=True):
        # The rasteriser takes numbers as they are; wrong ones would lead it out of its arrays.
        faces = np.asarray(mesh.faces)
        if not (np.abs(points) < 1e9).all() or faces.min() < 0 or faces.max() >= len(points):
            raise UserError(f"mesh {path} has vertices that are NaN, infinite or not there")
    every = np.concatenate(places)
    low, high = every.min(0), every.max(0)
    if not (high - low).max() > 0:
        raise UserError(f"mesh {path} is a single point")
    scale = config.scale or 1.8 / float((high - low).max())
    middle = 0.5 * (low + high) if not config.scale else np.zeros(3)
    out = []
    for mesh, points in zip(meshes, places, strict=True):
        try:
            uv, texture, colours = _look(path, mesh)
        except UserError:
            raise
        except Exception:  # a material may hold anything
            raise UserError(f"mesh {path} has a material that cannot be read") from None
        if uv.shape != (len(points), 2) or not (np.abs(uv) < 1e6).all():
            raise UserError(f"mesh {path} has texture coordinates that are NaN or missing")
        part = Part("skin", (points - middle) * scale, np.asarray(mesh.faces), uv, texture)
        part.blended = texture.has_alpha
        if colours is not None:
            part.paint = colours
        out.append(part)
    return out


def refuse_no_numbers(path: Path) -> None:
    """Refuse a PLY of text that holds NaN; trimesh reads it as a 0 where integers are expected.

    Raises:
        UserError: names the line.
    """
    if path.suffix.lower() != ".ply":
        return
    with open(path, "rb") as file:
        if b"ascii" not in file.readline() + file.readline():
            return
        for number, line in enumerate(file, 3):
            if any(word in (b"nan", b"inf", b"-inf") for word in line.lower().split()):
                raise UserError(f"mesh {path} has a value that is no number in line {number}")


def refuse_compressed(path: Path) -> None:
    """Refuse a glTF file whose geometry is compressed, which trimesh reads as empty.

    Raises:
        UserError: names the compression and what to do.
    """
    if path.suffix.lower() not in (".glb", ".gltf"):
        return
    content = path.read_bytes()
    if content[:4] == b"glTF":
        # A header of 12 bytes, then the first part: its length, its kind, and JSON.
        content = content[20 : 20 + int.from_bytes(content[12:16], "little")]
    used = json.loads(content).get("extensionsRequired", [])
    for extension, name in COMPRESSIONS.items():
        if extension in used:
            raise UserError(
                f"mesh {path} is compressed ({name}); export it without compression, or run "
                f"`npx @gltf-transform/cli copy {path.name} plain.glb`"
            )


def _look(path: Path, mesh) -> tuple[np.ndarray, Texture, np.ndarray | None]:
    """Texture coordinates, texture and vertex colours (as paint) of a mesh."""
    from studio.drawing.textures import srgb_to_linear

    visual = mesh.visual
    n = len(mesh.vertices)
    if visual.kind == "texture" and visual.uv is not None:
        material = visual.material
        image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
        if image is not None:
            if image.width * image.height > MOST_PIXELS:
                raise UserError(f"mesh {path} has a texture of more than {MOST_PIXELS} pixels")
            try:
                rgba = np.asarray(image.convert("RGBA"))
            except Exception:  # decoded only now, by whatever decoder it needs
                raise UserError(f"mesh {path} has a texture that cannot be read") from None
            return np.asarray(visual.uv)[:, :2], build_mips(rgba), None
    if visual.kind == "vertex":
        colours = np.asarray(visual.vertex_colors, dtype=float)[:, :3] / 255
        paint = np.concatenate([srgb_to_linear(colours), np.ones((n, 1))], 1)
        return np.full((n, 2), 0.5), solid_texture((1.0, 1.0, 1.0)), paint
    raise UserError(f"mesh {path} has neither a texture nor vertex colours; bake one into it")
