"""The head model: a linear model of heads of one topology, with the 52 ARKit blend shapes.

Legend: V vertices of the skin, P points (the skin's and those of teeth, tongue and eyes), R corners
(points doubled at texture seams), F triangles, K components, L landmarks.

``<folder>/config.json`` and ``<folder>/head.safetensors``, two megabytes, learnt by ``triavatar
train-rig`` from synthetic people. A head is ``mean + Σ zₖ componentₖ`` with z ~ N(0, 1).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from runtime.described import Count, Described, Name, read_described
from runtime.errors import UserError
from runtime.files import write_json
from runtime.formats.tensor_files import load_tensors, save_tensors
from runtime.shipped import shipped
from studio.looks.arkit_shapes import NAMES

FORMAT: Literal["triavatar-head-model"] = "triavatar-head-model"
CONFIG, TENSORS = "config.json", "head.safetensors"
MOST_BYTES = 64 * 2**20
MM_PER_UNIT = 225 / 1.02
"""A head is 1.02 world units, and a grown-up's 225 mm, from chin to crown."""
PARTS = ("skin", "upper teeth", "lower teeth", "tongue", "right eye", "left eye")
JOINTS = ("neck", "head", "jaw", "right eye", "left eye")
REGIONS = ("hidden", "face", "ears", "scalp", "neck")
LANDMARKS = ("nose tip", "chin", "upper lip", "lower lip") + tuple(
    f"{side} {mark}"
    for side in ("right", "left")
    for mark in (
        *("mouth corner", "eye, inner corner", "eye, outer corner"),
        *("upper lid", "lower lid", "ear, top"),
    )
)
LAYOUT = {
    "mean": "V 3",
    "basis": "K V 3",
    "basis_step": "K",
    "boxes_mean": "5 2 3",
    "boxes_basis": "K 5 2 3",
    "joints_mean": "5 3",
    "joints_basis": "K 5 3",
    "units": "I 3",
    "inner": "I",
    "colors": "I 3",
    "faces": "F 3",
    "source": "R",
    "uv": "R 2",
    "part": "F",
    "head_share": "P",
    "jaw_share": "P",
    "region": "V",
    "shape_start": "S",
    "shape_point": "M",
    "shape_offset": "M 3",
    "landmark_points": "L",
    "pixels_mean": "D",
    "pixels_basis": "K D",
    "pixels_basis_step": "K",
    "guess_mean": "K",
    "guess_deviation": "K",
    "depth_offset": "1",
}
"""Tensors of the file and their shapes; a letter stands for the same number wherever it is."""
WHOLE = {
    **dict.fromkeys(("basis", "pixels_basis"), ("I8",)),
    **dict.fromkeys(("inner", "colors", "part", "region"), ("U8",)),
    **dict.fromkeys(("faces", "source", "shape_start", "shape_point", "landmark_points"), ("I32",)),
}
"""Those that hold whole numbers, and of which kind."""


class HeadFile(Described):
    """``config.json`` of a head model."""

    format: Literal["triavatar-head-model"]
    version: Literal[1]
    people: Count
    shapes: list[Name]
    landmarks: list[Name]


@dataclass(frozen=True)
class HeadModel:
    """See the module.

    Attributes:
        mean: skin of the average head, world units, [V, 3] float32.
        basis: components of the skin, [K, V, 3] float32, for unit coefficients.
        boxes_mean, boxes_basis: centre and half size of every inner part, [5, 2, 3], [K, 5, 2, 3].
        joints_mean, joints_basis: places of :data:`JOINTS`, [5, 3] and [K, 5, 3].
        units: points of the inner parts in boxes of [-1, 1]³, [P - V, 3].
        inner: which of PARTS[1:] they belong to, from 0, [P - V] uint8.
        colors: of them, sRGB, [P - V, 3] uint8.
        faces: [F, 3] int32 on corners, counter-clockwise from outside.
        source: point of each corner, [R] int32.
        uv: [R, 2] float32 in [0, 1], u to the right, v down: the same texture layout for everyone.
        part: of each triangle, index into PARTS, [F] uint8.
        head_share, jaw_share: how far each point follows the turning head and the jaw, [P], 0..1.
        region: of each vertex of the skin, index into REGIONS, [V] uint8.
        shape_start: [53] int32: shape n moves the points ``shape_point[start[n]:start[n + 1]]``.
        shape_point, shape_offset: those points [M] int32 and by how much, [M, 3] float32.
        landmark_points: skin vertices, [L] int32.
        pixels_mean, pixels_basis: map of first guesses, [D] and [K, D].
        guess_mean, guess_deviation: their coefficients' mean and how far they miss, [K]; see
            :mod:`triavatar.rig.first_guess`.
        depth_offset: how far inside the surface that rays find the skin lies, world units, [1].
        config: names and counts.
    """

    mean: np.ndarray
    basis: np.ndarray
    boxes_mean: np.ndarray
    boxes_basis: np.ndarray
    joints_mean: np.ndarray
    joints_basis: np.ndarray
    units: np.ndarray
    inner: np.ndarray
    colors: np.ndarray
    faces: np.ndarray
    source: np.ndarray
    uv: np.ndarray
    part: np.ndarray
    head_share: np.ndarray
    jaw_share: np.ndarray
    region: np.ndarray
    shape_start: np.ndarray
    shape_point: np.ndarray
    shape_offset: np.ndarray
    landmark_points: np.ndarray
    pixels_mean: np.ndarray
    pixels_basis: np.ndarray
    guess_mean: np.ndarray
    guess_deviation: np.ndarray
    depth_offset: np.ndarray
    config: HeadFile

    @property
    def shapes(self) -> tuple[str, ...]:
        """Names of the blend shapes."""
        return tuple(self.config.shapes)

    def points(self, skin: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """All points [P, 3] of a head with this skin [V, 3] and these inner boxes [5, 2, 3]."""
        inner = boxes[self.inner, 0] + self.units * boxes[self.inner, 1]
        return np.concatenate([skin, inner]).astype(np.float32)

    def skin(self, z: np.ndarray) -> np.ndarray:
        """Skin [V, 3] of coefficients [K]."""
        return self.mean + np.tensordot(z, self.basis, 1)

    def boxes(self, z: np.ndarray) -> np.ndarray:
        """Boxes of the inner parts, [5, 2, 3]."""
        return self.boxes_mean + np.tensordot(z, self.boxes_basis, 1)

    def joints(self, z: np.ndarray) -> np.ndarray:
        """Joints [5, 3]."""
        return self.joints_mean + np.tensordot(z, self.joints_basis, 1)

    def shape(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Points [m] that a blend shape moves, and their offsets [m, 3] at a weight of one."""
        at = self.shapes.index(name)
        piece = slice(self.shape_start[at], self.shape_start[at + 1])
        return self.shape_point[piece], self.shape_offset[piece]

    def save(self, folder: Path) -> None:
        """Write the folder; the components in 8 bits, offsets in half precision."""
        tensors = {}
        for field in fields(self):
            if field.name != "config":
                value = getattr(self, field.name)
                if field.name in ("basis", "pixels_basis"):
                    whole = value.reshape(len(value), -1)
                    step = np.maximum(np.abs(whole).max(axis=1) / 127, 1e-12)
                    tensors[f"{field.name}_step"] = torch.from_numpy(step.astype(np.float32))
                    value = np.round(whole / step[:, None]).astype(np.int8).reshape(value.shape)
                elif field.name in ("shape_offset", "units", "uv", "head_share", "jaw_share"):
                    value = value.astype(np.float16)
                tensors[field.name] = torch.from_numpy(np.ascontiguousarray(value))
        save_tensors(folder / TENSORS, tensors)
        write_json(folder / CONFIG, self.config.model_dump())

    @classmethod
    def load(cls, folder: Path) -> HeadModel:
        """Read a folder that :meth:`save` wrote.

        Raises:
            UserError: it is missing, damaged, or its pieces contradict each other.
        """
        if not (folder / CONFIG).is_file():
            raise UserError(
                f"{folder} holds no head model (no {CONFIG}); give a folder that `triavatar "
                "train-rig` wrote, or a model with the part rig."
            )
        config = read_described(HeadFile, folder / CONFIG)
        expected = {
            name: [int(size) if size.isdigit() else None for size in shape.split()]
            for name, shape in LAYOUT.items()
        }
        tensors, _ = load_tensors(folder / TENSORS, expected, MOST_BYTES, WHOLE)
        _check_sizes(tensors, config, folder)
        values = {}
        for field in fields(cls):
            if field.name == "config":
                continue
            value = tensors[field.name].numpy()
            if field.name in ("basis", "pixels_basis"):
                step = tensors[f"{field.name}_step"].numpy()
                value = value * step.reshape(-1, *(1,) * (value.ndim - 1))
            values[field.name] = value.astype(np.float32) if value.dtype == np.float16 else value
        model = cls(**values, config=config)
        _check(model, folder)
        return model


def _check_sizes(tensors: dict[str, Tensor], config: HeadFile, folder: Path) -> None:
    """Refuse tensors and names that are not of one model."""
    sizes = {"S": len(NAMES) + 1, "L": len(LANDMARKS)}
    sizes["P"] = len(tensors["mean"]) + len(tensors["units"])
    for known, named in ((NAMES, config.shapes), (LANDMARKS, config.landmarks)):
        if sorted(named) != sorted(known):
            other = next(iter(set(known) ^ set(named)), "one name twice")
            raise UserError(
                f"{folder / CONFIG} doesn't name what this version knows ({other}); make the head "
                "model again with train-rig, or download it again."
            )
    alike = True
    for name, shape in LAYOUT.items():
        for letter, size in zip(shape.split(), tensors[name].shape, strict=True):
            alike = alike and (letter.isdigit() or sizes.setdefault(letter, size) == size)
    if not alike or not min(sizes.values()):
        raise _damaged(folder)


def _check(model: HeadModel, folder: Path) -> None:
    """Refuse indices that lead out of the arrays they point into."""
    points = len(model.mean) + len(model.units)
    bounded = (
        (model.faces, len(model.source)),
        (model.source, points),
        (model.shape_point, points),
        (model.landmark_points, len(model.mean)),
        (model.part, len(PARTS)),
        (model.region, len(REGIONS)),
        (model.inner, len(PARTS) - 1),
        (model.shape_start, len(model.shape_point) + 1),
    )
    if any(len(v) and (v.min() < 0 or v.max() >= most) for v, most in bounded):
        raise _damaged(folder)
    skin = model.source[model.faces[model.part == 0]]
    if (np.diff(model.shape_start) < 0).any() or not skin.size or skin.max() >= len(model.mean):
        raise _damaged(folder)


def _damaged(folder: Path) -> UserError:
    return UserError(f"{folder / TENSORS} is damaged; make it or download it again.")


def has_head_model() -> bool:
    """Whether a head model comes with this installation."""
    bundle = shipped("bundle")
    return bundle is not None and (bundle / "rig" / CONFIG).is_file()


def find_head_model(folder: Path | str | None = None) -> HeadModel:
    """Read a head model: of a folder, of a bundle with one, or the shipped one without a name.

    Raises:
        UserError: there is none, or it is damaged.
    """
    if folder is None:
        bundle = shipped("bundle")
        if bundle is None or not has_head_model():
            raise UserError(
                "no head model comes with this installation; name one with --rig (a folder that "
                "`triavatar train-rig` wrote, or a model with the part rig)."
            )
        return HeadModel.load(bundle / "rig")
    folder = Path(folder)
    return HeadModel.load(folder / "rig" if (folder / "rig" / CONFIG).is_file() else folder)
