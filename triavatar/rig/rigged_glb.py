"""A rigged head as binary glTF 2.0: skin, bones and the 52 ARKit morph targets.

Legend: P points, R corners, S corners of the shell, J bones.

Two meshes under one skin: ``head`` (skin, teeth, tongue, eyes; the same triangles, texture layout
and morph targets for everybody) and ``shell`` (hair, hat, clothes of this avatar).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from triavatar.export.gltf_blob import Blob, add_material, new_gltf
from triavatar.export.libraries import needed
from triavatar.export.mesh import Mesh, Placement
from triavatar.export.surface import corner_normals
from triavatar.rig.moving import shell_follow, shell_share
from triavatar.rig.rigged import BONES, PARENTS, RiggedHead, turn_weights

LEAST = 1e-5
"""Metres below which a morph target leaves the shell where it is."""


def write_rigged_glb(
    path: Path,
    head: RiggedHead,
    texture: np.ndarray,
    shell: Mesh | None,
    placement: Placement,
    title: str,
    unlit: bool = False,
) -> None:
    """Write the file.

    Args:
        path: file with suffix ``.glb``.
        head: registered.
        texture: of the head, [T, T, 3] uint8.
        shell: world units, with normals, uv and texture; None without one.
        placement: from world units to the file's metres.
        title: name of the avatar.
        unlit: show textures as they are.

    Raises:
        UserError: pygltflib is missing.
    """
    library = needed("pygltflib")
    gltf = new_gltf()
    blob = Blob(gltf)
    _add_bones(blob, placement.points(head.bone_places()))
    points = placement.points(head.points)
    # The skin, too, ends where the bust was cut.
    points[:, 1] = np.maximum(points[:, 1], 0)
    model = head.model
    normals = corner_normals(Mesh(points, model.source[model.faces]))
    corners = Mesh(points[model.source], model.faces, normals[model.source], model.uv, texture)
    moves = []
    for name in model.shapes:
        offset = np.zeros((len(points), 3), dtype=np.float32)
        rows, values = head.shape(name)
        offset[rows] = values * placement.scale
        moves.append(offset)
    weights = head.bone_weights()[model.source]
    scene = [0]
    scene.append(_add_mesh(blob, corners, [m[model.source] for m in moves], weights, "head", unlit))
    if shell is not None and len(shell.faces):
        placed = placement.mesh(shell)
        follow = shell_follow(head, shell)
        skin = len(model.mean)
        own = [follow @ move[:skin] for move in moves]
        share = np.zeros((len(shell.vertices), len(BONES)))
        share[:, :3] = turn_weights(shell_share(head, shell))
        scene.append(_add_mesh(blob, placed, own, share, "shell", unlit))
    for node in scene[1:]:
        gltf.meshes[gltf.nodes[node].mesh].extras = {"targetNames": list(model.shapes)}
    gltf.scenes, gltf.scene = [library.Scene(nodes=scene, name=title)], 0
    blob.write(path)


def _add_bones(blob: Blob, places: np.ndarray) -> None:
    """Append the skeleton's nodes, the root first, and the skin."""
    library, gltf = needed("pygltflib"), blob.gltf
    for bone, (name, parent) in enumerate(zip(BONES, PARENTS, strict=True)):
        origin = places[parent] if parent >= 0 else np.zeros(3)
        gltf.nodes.append(
            library.Node(
                name=name,
                translation=(places[bone] - origin).astype(float).tolist(),
                children=[k for k, p in enumerate(PARENTS) if p == bone],
            )
        )
    inverse = np.tile(np.eye(4, dtype=np.float32), (len(BONES), 1, 1))
    # glTF keeps matrices column by column.
    inverse[:, 3, :3] = -places
    matrices = blob.add_array(inverse.reshape(len(BONES), 16), "MAT4")
    gltf.skins = [
        library.Skin(inverseBindMatrices=matrices, skeleton=0, joints=list(range(len(BONES))))
    ]


def _add_mesh(
    blob: Blob, mesh: Mesh, moves: list[np.ndarray], weights: np.ndarray, name: str, unlit: bool
) -> int:
    """Append a mesh with morph targets and its node; the node's index."""
    assert mesh.normals is not None and mesh.uv is not None and mesh.texture is not None
    library, gltf = needed("pygltflib"), blob.gltf
    vertex, element = library.ARRAY_BUFFER, library.ELEMENT_ARRAY_BUFFER
    joints, shares = _four_bones(weights)
    attributes = library.Attributes(
        POSITION=blob.add_array(mesh.vertices.astype(np.float32), "VEC3", vertex),
        NORMAL=blob.add_array(mesh.normals.astype(np.float32), "VEC3", vertex),
        TEXCOORD_0=blob.add_array(mesh.uv.astype(np.float32), "VEC2", vertex),
        JOINTS_0=blob.add_array(joints, "VEC4", vertex),
        WEIGHTS_0=blob.add_array(shares, "VEC4", vertex),
    )
    indices = blob.add_array(mesh.faces.reshape(-1).astype(np.uint32), "SCALAR", element)
    targets = []
    for move in moves:
        rows = np.flatnonzero(np.abs(move).max(axis=1) > LEAST)
        sparse = blob.add_sparse(rows, move[rows], len(move))
        targets.append(library.Attributes(POSITION=sparse))
    primitive = library.Primitive(
        attributes=attributes,
        indices=indices,
        material=add_material(blob, mesh.texture, name, unlit),
        targets=targets,
    )
    gltf.meshes.append(library.Mesh(name=name, primitives=[primitive], weights=[0.0] * len(moves)))
    gltf.nodes.append(library.Node(name=name, mesh=len(gltf.meshes) - 1, skin=0))
    return len(gltf.nodes) - 1


def _four_bones(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The four strongest bones of each vertex, [n, 4] uint8, and their shares [n, 4] float32."""
    order = np.argsort(-weights, axis=1)[:, :4]
    shares = np.take_along_axis(weights, order, axis=1).astype(np.float32)
    shares /= shares.sum(axis=1, keepdims=True)
    return np.where(shares > 0, order, 0).astype(np.uint8), shares
