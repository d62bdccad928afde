"""A textured mesh as one binary glTF 2.0 file, or as OBJ with its material and picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from runtime.files import atomic_path
from runtime.version import VERSION
from triavatar.export.gltf_blob import Blob, add_material, encode_texture, new_gltf
from triavatar.export.libraries import needed
from triavatar.export.mesh import Mesh


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
    gltf = new_gltf()
    blob = Blob(gltf)
    vertex, element = library.ARRAY_BUFFER, library.ELEMENT_ARRAY_BUFFER
    attributes = library.Attributes(
        POSITION=blob.add_array(mesh.vertices.astype(np.float32), "VEC3", vertex),
        NORMAL=blob.add_array(mesh.normals.astype(np.float32), "VEC3", vertex),
        TEXCOORD_0=blob.add_array(mesh.uv.astype(np.float32), "VEC2", vertex),
    )
    indices = blob.add_array(mesh.faces.reshape(-1).astype(np.uint32), "SCALAR", element)
    material = add_material(blob, mesh.texture, title, unlit)
    primitive = library.Primitive(attributes=attributes, indices=indices, material=material)
    gltf.meshes = [library.Mesh(name=title, primitives=[primitive])]
    gltf.nodes = [library.Node(name=title, mesh=0)]
    gltf.scenes, gltf.scene = [library.Scene(nodes=[0])], 0
    blob.write(path)


def write_obj(path: Path, mesh: Mesh, title: str) -> None:
    """Write Wavefront OBJ, with ``<stem>.mtl`` and ``<stem>.jpg`` beside it: all three or none.

    Args:
        path: file with suffix ``.obj``.
        mesh: placed in metres, with normals, uv and texture.
        title: name of the object.
    """
    assert mesh.normals is not None and mesh.uv is not None and mesh.texture is not None
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in title) or "avatar"
    texture, material = path.with_suffix(".jpg"), path.with_suffix(".mtl")
    looks = f"newmtl {name}\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {texture.name}\n"
    lines = [f"# triavatar {VERSION}; metres, +y up, facing +z", f"mtllib {material.name}"]
    lines += [f"o {name}", f"usemtl {name}"]
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in mesh.vertices.tolist()]
    # OBJ counts v from the picture's lower edge.
    lines += [f"vt {u:.6f} {1 - v:.6f}" for u, v in mesh.uv.tolist()]
    lines += [f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in mesh.normals.tolist()]
    lines += [f"f {a}/{a}/{a} {b}/{b}/{b} {c}/{c}/{c}" for a, b, c in (mesh.faces + 1).tolist()]
    with atomic_path(texture) as one, atomic_path(material) as two, atomic_path(path) as three:
        one.write_bytes(encode_texture(mesh.texture))
        two.write_text(looks, encoding="utf-8")
        three.write_text("\n".join(lines) + "\n", encoding="utf-8")
