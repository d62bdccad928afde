"""glTF 2.0 files while they grow: binary pieces, accessors, materials."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from runtime.files import atomic_path
from runtime.version import VERSION
from triavatar.export.libraries import needed

ROUGHNESS = 0.8


def encode_texture(texture: np.ndarray, quality: int = 95) -> bytes:
    """uint8 [T, T, 3] as JPEG, with colours as fine as greys."""
    buffer = io.BytesIO()
    Image.fromarray(texture).save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True)
    return buffer.getvalue()


def new_gltf() -> Any:
    """An empty glTF of the library's.

    Raises:
        UserError: pygltflib is missing.
    """
    library = needed("pygltflib")
    return library.GLTF2(asset=library.Asset(version="2.0", generator=f"triavatar {VERSION}"))


@dataclass
class Blob:
    """The binary part of a file while it grows, and the views that name its pieces."""

    gltf: Any
    content: bytearray = field(default_factory=bytearray)

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
        """Append float32, uint32 or uint8 values; the index of their accessor."""
        library = needed("pygltflib")
        codes = {"float32": library.FLOAT, "uint32": library.UNSIGNED_INT}
        codes["uint8"] = library.UNSIGNED_BYTE
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

    def add_sparse(self, rows: np.ndarray, values: np.ndarray, count: int) -> int:
        """Append float32 vectors [m, 3] at some rows [m], zeros elsewhere; their accessor's index.

        Args:
            count: how many vectors there are, zeros included.
        """
        library = needed("pygltflib")
        sparse, low, high = None, np.zeros(3), np.zeros(3)
        if len(rows):
            order = np.argsort(rows)
            values = np.ascontiguousarray(values[order], dtype=np.float32)
            sparse = library.Sparse(
                count=len(rows),
                indices=library.AccessorSparseIndices(
                    bufferView=self.add(rows[order].astype(np.uint32).tobytes()),
                    componentType=library.UNSIGNED_INT,
                ),
                values=library.AccessorSparseValues(bufferView=self.add(values.tobytes())),
            )
            low, high = values.min(axis=0), values.max(axis=0)
            if len(rows) < count:
                low, high = np.minimum(low, 0), np.maximum(high, 0)
        self.gltf.accessors.append(
            library.Accessor(
                byteOffset=None,
                componentType=library.FLOAT,
                count=count,
                type="VEC3",
                sparse=sparse,
                min=low.tolist(),
                max=high.tolist(),
            )
        )
        return len(self.gltf.accessors) - 1

    def write(self, path: Path) -> None:
        """Write the file, binary part included."""
        self.gltf.buffers = [needed("pygltflib").Buffer(byteLength=len(self.content))]
        self.gltf.set_binary_blob(bytes(self.content))
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"".join(self.gltf.save_to_bytes()))


def add_material(blob: Blob, texture: np.ndarray, title: str, unlit: bool) -> int:
    """Append a physically based material with a picture; its index.

    Args:
        texture: sRGB, [T, T, 3] uint8.
        unlit: show the texture as it is (KHR_materials_unlit); viewers that don't know the
            extension light it.
    """
    library, gltf = needed("pygltflib"), blob.gltf
    image = blob.add(encode_texture(texture))
    gltf.images.append(library.Image(bufferView=image, mimeType="image/jpeg", name=title))
    gltf.samplers = [
        library.Sampler(
            magFilter=library.LINEAR,
            minFilter=library.LINEAR_MIPMAP_LINEAR,
            wrapS=library.CLAMP_TO_EDGE,
            wrapT=library.CLAMP_TO_EDGE,
        )
    ]
    gltf.textures.append(library.Texture(sampler=0, source=len(gltf.images) - 1))
    surface = library.PbrMetallicRoughness(
        baseColorTexture=library.TextureInfo(index=len(gltf.textures) - 1),
        metallicFactor=0.0,
        roughnessFactor=ROUGHNESS,
    )
    material = library.Material(name=title, pbrMetallicRoughness=surface, alphaMode="OPAQUE")
    # The library's own defaults would state a cut-off, which opaque materials must not have.
    material.alphaCutoff = None
    if unlit:
        material.extensions = {"KHR_materials_unlit": {}}
        gltf.extensionsUsed = ["KHR_materials_unlit"]
    gltf.materials.append(material)
    return len(gltf.materials) - 1
