"""A textured mesh as one binary glTF 2.0 file, or as OBJ with its material and picture."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from runtime.files import atomic_path, write_text
from runtime.version import VERSION
from triavatar.export.libraries import needed
from triavatar.export.mesh import Mesh

ROUGHNESS = 0.8


def encode_texture(texture: np.ndarray, quality: int = 95) -> bytes:
    """uint8 [T, T, 3] as JPEG, with colours as fine as greys."""
    buffer = io.BytesIO()
    Image.fromarray(texture).save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True)
    return buffer.getvalue()


@dataclass
class _Blob:
    """The binary part of a file while it grows, and the views that name its pieces."""

    gltf: Any
    content: bytearray

    def add(self, piece: bytes, target: int | None = None) -> int:
        """Append bytes, aligned to four; the index of their buffer view."""
        library = needed("pygltflib")
        start = len(self.content)
        self.content += piece + b"\0" * (-len(piece) % 4)
        self.gltf.bufferViews.append(
            library.BufferView(buffer=0, byteOffset=start, byteLength=len(piece), target=target)
        )
        return len(self.gltf.bufferViews) - 1

    def add_array(self, array: np.ndarray, kind: str, target: int | None = None) -> int:
        """Append float32 or uint32 values; the index of their accessor."""
        library = needed("pygltflib")
        codes = {"float32": library.FLOAT, "uint32": library.UNSIGNED_INT}
        view = self.add(np.ascontiguousarray(array).tobytes(), target)
        bounded = array.reshape(len(array), -1)
        self.gltf.accessors.append(
            library.Accessor(
                bufferView=view,
                componentType=codes[array.dtype.name],
                count=len(array),
                type=kind,
                min=bounded.min(axis=0).tolist(),
                max=bounded.max(axis=0).tolist(),
            )
        )
        return len(self.gltf.accessors) - 1


def write_glb(path: Path, mesh: Mesh, title: str, unlit: bool = False) -> None:
    """Write binary glTF with a physically based material.

    Args:
        path: file with suffix ``.glb``.
        mesh: placed in metres, with normals, uv and texture.
        title: name of the node and the mesh.
        unlit: show the texture as it is (KHR_materials_unlit); viewers that don't know the
            extension light it.

    Raises:
        UserError: pygltflib is missing.
    """
    library = needed("pygltflib")
    assert mesh.normals is not None and mesh.uv is not None and mesh.texture is not None
    gltf = library.GLTF2(asset=library.Asset(version="2.0", generator=f"triavatar {VERSION}"))
    blob = _Blob(gltf, bytearray())
    vertex, element = library.ARRAY_BUFFER, library.ELEMENT_ARRAY_BUFFER
    attributes = library.Attributes(
        POSITION=blob.add_array(mesh.vertices.astype(np.float32), "VEC3", vertex),
        NORMAL=blob.add_array(mesh.normals.astype(np.float32), "VEC3", vertex),
        TEXCOORD_0=blob.add_array(mesh.uv.astype(np.float32), "VEC2", vertex),
    )
    indices = blob.add_array(mesh.faces.reshape(-1).astype(np.uint32), "SCALAR", element)
    image = blob.add(encode_texture(mesh.texture))
    gltf.images = [library.Image(bufferView=image, mimeType="image/jpeg", name=title)]
    gltf.samplers = [
        library.Sampler(
            magFilter=library.LINEAR,
            minFilter=library.LINEAR_MIPMAP_LINEAR,
            wrapS=library.CLAMP_TO_EDGE,
            wrapT=library.CLAMP_TO_EDGE,
        )
    ]
    gltf.textures = [library.Texture(sampler=0, source=0)]
    surface = library.PbrMetallicRoughness(
        baseColorTexture=library.TextureInfo(index=0),
        metallicFactor=0.0,
        roughnessFactor=ROUGHNESS,
    )
    material = library.Material(name=title, pbrMetallicRoughness=surface, alphaMode="OPAQUE")
    # The library's own defaults would state a cut-off, which opaque materials must not have.
    material.alphaCutoff = None
    if unlit:
        material.extensions = {"KHR_materials_unlit": {}}
        gltf.extensionsUsed = ["KHR_materials_unlit"]
    gltf.materials = [material]
    primitive = library.Primitive(attributes=attributes, indices=indices, material=0)
    gltf.meshes = [library.Mesh(name=title, primitives=[primitive])]
    gltf.nodes = [library.Node(name=title, mesh=0)]
    gltf.scenes, gltf.scene = [library.Scene(nodes=[0])], 0
    gltf.buffers = [library.Buffer(byteLength=len(blob.content))]
    gltf.set_binary_blob(bytes(blob.content))
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"".join(gltf.save_to_bytes()))


def write_obj(path: Path, mesh: Mesh, title: str) -> None:
    """Write Wavefront OBJ, with ``<stem>.mtl`` and ``<stem>.jpg`` beside it.

    Args:
        path: file with suffix ``.obj``.
        mesh: placed in metres, with normals, uv and texture.
        title: name of the object.
    """
    assert mesh.normals is not None and mesh.uv is not None and mesh.texture is not None
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in title) or "avatar"
    texture, material = path.with_suffix(".jpg"), path.with_suffix(".mtl")
    with atomic_path(texture) as temporary:
        temporary.write_bytes(encode_texture(mesh.texture))
    write_text(material, f"newmtl {name}\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {texture.name}\n")
    lines = [f"# triavatar {VERSION}; metres, +y up, facing +z", f"mtllib {material.name}"]
    lines += [f"o {name}", f"usemtl {name}"]
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in mesh.vertices.tolist()]
    # OBJ counts v from the picture's lower edge.
    lines += [f"vt {u:.6f} {1 - v:.6f}" for u, v in mesh.uv.tolist()]
    lines += [f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in mesh.normals.tolist()]
    lines += [f"f {a}/{a}/{a} {b}/{b}/{b} {c}/{c}/{c}" for a, b, c in (mesh.faces + 1).tolist()]
    write_text(path, "\n".join(lines) + "\n")
