"""Learning the head model from the studio's people.

Legend: N people, V vertices of the skin, P points, K components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from studio.assets import AssetFolder
from studio.looks.arkit_shapes import NAMES, arkit_offsets
from studio.people.bare_head import BareHead, bare_head, person
from studio.people.body import shaped_vertices
from studio.people.placement import HEAD_HEIGHT, placement
from studio.people.subject import Subject
from triavatar.export.raster import see
from triavatar.rig.head_model import FORMAT, PARTS, REGIONS, HeadFile, HeadModel
from triavatar.rig.texture_layout import lay_out
from triavatar.views import still_cameras

LEAST_OFFSET = 2e-4
"""World units (0.04 mm) below which a shape leaves a point where it is."""


@dataclass(frozen=True)
class Heads:
    """Heads of N people: skin [N, V, 3], boxes [N, 5, 2, 3], joints [N, 5, 3]."""

    skin: np.ndarray
    boxes: np.ndarray
    joints: np.ndarray


def gather(assets: AssetFolder, topology: BareHead, subjects: Sequence[Subject]) -> Heads:
    """Heads of the studio's subjects at rest."""
    found = [person(assets, topology, subject.shape) for subject in subjects]
    return Heads(*(np.stack(each).astype(np.float32) for each in zip(*found, strict=True)))


def learn_head(assets: AssetFolder, subjects: Sequence[Subject], components: int) -> HeadModel:
    """Principal components of people's heads, and the blend shapes of the average one.

    The map of first guesses is left empty.
    """
    topology = bare_head(assets)
    heads = gather(assets, topology, subjects)
    people = len(subjects)
    # Everybody's mirror image would be a person, too; the assets' faces lean to neither side.
    flat = heads.skin.reshape(people, -1).astype(np.float64)
    mean = flat.mean(axis=0)
    _, size, basis = np.linalg.svd(flat - mean, full_matrices=False)
    count = min(components, people - 1)
    scaled = basis[:count] * size[:count, None] / np.sqrt(max(people - 1, 1))
    z = (flat - mean) @ basis[:count].T / np.maximum(size[:count] / np.sqrt(people - 1), 1e-9)
    follow = np.linalg.lstsq(np.c_[z, np.ones(people)], _inner(heads), rcond=None)[0]
    boxes, joints = follow[:, :30].reshape(-1, 5, 2, 3), follow[:, 30:].reshape(-1, 5, 3)
    skin = mean.reshape(-1, 3)
    points = topology.points(skin, boxes[-1])
    start, point, offset = _shapes(assets, topology, points, subjects)
    regions = _regions(topology, skin)
    marks = _landmarks(topology, skin, boxes[-1], regions)
    return HeadModel(
        mean=skin.astype(np.float32),
        basis=scaled.reshape(count, -1, 3).astype(np.float32),
        boxes_mean=boxes[-1].astype(np.float32),
        boxes_basis=boxes[:-1].astype(np.float32),
        joints_mean=joints[-1].astype(np.float32),
        joints_basis=joints[:-1].astype(np.float32),
        units=topology.units.astype(np.float32),
        inner=topology.inner.astype(np.uint8),
        colors=topology.colors,
        faces=topology.faces.astype(np.int32),
        source=topology.source.astype(np.int32),
        uv=lay_out(topology.uv, topology.faces, topology.part),
        part=topology.part.astype(np.uint8),
        head_share=topology.head_share.astype(np.float32),
        jaw_share=topology.jaw_share.astype(np.float32),
        region=regions.astype(np.uint8),
        shape_start=start,
        shape_point=point,
        shape_offset=offset,
        landmark_points=np.array(list(marks.values()), dtype=np.int32),
        pixels_mean=np.zeros(1, dtype=np.float32),
        pixels_basis=np.zeros((count, 1), dtype=np.float32),
        guess_mean=np.zeros(count, dtype=np.float32),
        guess_deviation=np.ones(count, dtype=np.float32),
        depth_offset=np.zeros(1, dtype=np.float32),
        config=HeadFile(
            format=FORMAT, version=1, people=people, shapes=list(NAMES), landmarks=list(marks)
        ),
    )


def coefficients(model: HeadModel, skin: np.ndarray) -> np.ndarray:
    """Coefficients [N, K] of known heads [N, V, 3]."""
    basis = model.basis.reshape(len(model.basis), -1).astype(np.float64)
    away = (skin - model.mean).reshape(len(skin), -1)
    return np.linalg.solve(basis @ basis.T, basis @ away.T).T


def _inner(heads: Heads) -> np.ndarray:
    people = len(heads.skin)
    return np.c_[heads.boxes.reshape(people, -1), heads.joints.reshape(people, -1)]


def _shapes(assets: AssetFolder, topology: BareHead, points, subjects: Sequence[Subject]):
    """Blend shapes as start of each, points and offsets."""
    base = shaped_vertices(assets, subjects[0].shape)
    two = placement(assets, base)(np.array([[0.0, 0, 0], [0.0, 1, 0]]))
    scale = float(two[1, 1] - two[0, 1])
    start, point, offset = [0], [], []
    for shape in arkit_offsets(assets, topology, points, scale):
        moved = np.flatnonzero(np.linalg.norm(shape, axis=1) > LEAST_OFFSET)
        point.append(moved.astype(np.int32))
        offset.append(shape[moved].astype(np.float32))
        start.append(start[-1] + len(moved))
    return np.array(start, dtype=np.int32), np.concatenate(point), np.concatenate(offset)


def _regions(topology: BareHead, skin: np.ndarray) -> np.ndarray:
    """Index into REGIONS of each vertex of the skin."""
    faces = topology.source[topology.faces[topology.part == 0]].astype(np.int32)
    cameras = still_cameras(tuple(range(-150, 181, 30)), 384, 5.0, 3.9)
    visible = np.zeros(len(skin), dtype=bool)
    for view in range(len(cameras)):
        seen = see(skin, faces, cameras, view).face
        visible[faces[np.unique(seen[seen >= 0])]] = True
    x, y, z = skin.T
    chin = skin[topology.chin, 1]
    out = np.full(len(skin), REGIONS.index("scalp"))
    front = (z > 0.1) & (y > chin - 0.01) & (y < chin + 0.75 * HEAD_HEIGHT) & (np.abs(x) < 0.36)
    out[front] = REGIONS.index("face")
    out[(y < chin - 0.01) & (topology.head_share[: len(skin)] < 0.999)] = REGIONS.index("neck")
    out[topology.ears > 0.3] = REGIONS.index("ears")
    out[~visible] = REGIONS.index("hidden")
    return out


def _landmarks(topology: BareHead, skin, boxes, regions) -> dict[str, int]:
    """Vertices of the skin by name; left and right are the subject's."""
    x, y, z = skin.T
    face = regions == REGIONS.index("face")
    marks = {
        "nose tip": int(np.argmax(np.where(face & (np.abs(x) < 0.02), z, -9))),
        "chin": topology.chin,
        "upper lip": topology.upper_lip,
        "lower lip": topology.lower_lip,
    }
    for side, sign in (("right", -1), ("left", 1)):
        here = face & (sign * x > 0)
        lips = here & (topology.lips > 0.35)
        marks[f"{side} mouth corner"] = int(np.argmax(np.where(lips, sign * x, -9)))
        centre, half = boxes[PARTS.index(f"{side} eye") - 1]
        near = here & (np.linalg.norm(skin - centre, axis=1) < 1.37 * half[0])
        marks[f"{side} eye, inner corner"] = int(np.argmin(np.where(near, sign * x, 9)))
        marks[f"{side} eye, outer corner"] = int(np.argmax(np.where(near, sign * x, -9)))
        lids = _lid_middles(skin, np.flatnonzero(near & (np.abs(x - centre[0]) < 0.03)))
        marks[f"{side} upper lid"], marks[f"{side} lower lid"] = lids
        ear = (topology.ears > 0.3) & (sign * x > 0)
        marks[f"{side} ear, top"] = int(np.argmax(np.where(ear, y, -9)))
    return marks


def _lid_middles(skin: np.ndarray, rows: np.ndarray) -> tuple[int, int]:
    """The two vertices, of those near the middle of an eyeball, between which the eye is open."""
    rows = rows[np.argsort(-skin[rows, 1])]
    widest = int(np.argmax(skin[rows[:-1], 1] - skin[rows[1:], 1]))
    return int(rows[widest]), int(rows[widest + 1])
