"""``triavatar train-rig``: the head model, learnt from synthetic people."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from captures.multiview import MultiViewSet
from renderer.decoder import TriplaneDecoder
from renderer.fitted_set import FittedSet
from renderer.render import RenderSettings
from runtime.errors import UserError
from runtime.files import new_folder
from runtime.progress import progress
from studio.assets import AssetFolder
from studio.people.bare_head import bare_head, person
from studio.people.random_subject import sample_subject
from studio.people.subject import Subject
from triavatar.export.field import Field
from triavatar.rig.first_guess import describe, learn_guess
from triavatar.rig.head_model import HeadModel
from triavatar.rig.learn_head import coefficients, learn_head
from triavatar.rig.register import surface_offset

MARCH = RenderSettings(steps=512)
OTHERS = 300
"""People drawn beside those of the set, so that shapes are learnt from more than were fitted."""
OFFSET_PEOPLE = 24


@dataclass
class TrainRigConfig:
    """Settings of ``triavatar train-rig``."""

    root: Path
    """Multi-view set that `studio render` made: the people whose triplanes are fitted."""
    triplanes: Path
    """Their triplanes: output folder of fit-triplanes."""
    output_dir: Path
    """Folder to write: config.json and head.safetensors."""
    assets: Path | None = None
    """Folder with the clones makehuman/ and makehuman-assets/; default: $TRIAVATAR_ASSETS."""
    components: int = 80
    """Components of the linear model of heads, at most; 13 KB each."""
    n_people: int | None = None
    """Only the first so many fitted people."""


def set_subjects(views: MultiViewSet, names: list[str], assets: AssetFolder) -> dict[str, Subject]:
    """The studio's subjects behind a set's objects, at rest.

    Raises:
        UserError: the set was not drawn by this version of the studio.
    """
    out = {}
    for name in names:
        origin = views.origin(name)
        if origin is None:
            raise UserError(f"{views.root} was not drawn by studio render; its heads are unknown.")
        subject = sample_subject(assets, origin[0], origin[1])
        stated = views.attributes(name).get("shape")
        if json.dumps(subject.attributes()["shape"]) != json.dumps(stated):
            raise UserError(
                f"{name} of {views.root} was drawn by another version of the studio, or with other "
                "assets; draw the set again with studio render."
            )
        out[name] = subject
    return out


def train_rig(config: TrainRigConfig) -> None:
    """Learn the head model and write it, or nothing.

    Raises:
        UserError: assets, set or triplanes are missing or don't belong together.
    """
    assets = AssetFolder(config.assets)
    views = MultiViewSet(config.root)
    fitted = FittedSet.open(config.triplanes)
    names = [name for name in views.split("train") if name in set(fitted.names)][: config.n_people]
    if len(names) < 10:
        raise UserError(
            f"{fitted.folder} holds triplanes of {len(names)} training people of {views.root}; a "
            "head model takes at least 10."
        )
    subjects = set_subjects(views, names, assets)
    # Nobody of the set, held-out people neither.
    seed = 1 + max(subject.seed for subject in subjects.values())
    others = [sample_subject(assets, seed, index) for index in range(OTHERS)]
    model = learn_head(assets, [*subjects.values(), *others], config.components)
    topology, decoder = bare_head(assets), fitted.decoder()
    skins, pictures, fields = [], [], []
    for name in progress(names, desc="people", unit="person"):
        skins.append(person(assets, topology, subjects[name].shape)[0])
        field = open_field(fitted.load(name), decoder)
        pictures.append(describe(field))
        fields = [*fields, field][:OFFSET_PEOPLE]
    model = with_guess(model, np.stack(skins), np.stack(pictures))
    pairs = zip(skins[: len(fields)], fields, strict=True)
    offset = np.median([surface_offset(model, skin, field) for skin, field in pairs])
    model = replace(model, depth_offset=np.array([offset], dtype=np.float32))
    with new_folder(config.output_dir) as growing:
        model.save(growing)
    print(f"head model of {len(subjects) + OTHERS} people in {config.output_dir}")


def open_field(planes: Tensor, decoder: TriplaneDecoder) -> Field:
    """A triplane as registration looks at it."""
    return Field.of(planes.float(), decoder, MARCH)


def with_guess(model: HeadModel, skins: np.ndarray, pictures: np.ndarray) -> HeadModel:
    """The model with first guesses learnt from pictures [N, D] of heads [N, V, 3]."""
    z = coefficients(model, skins)
    mean, matrix, deviation = learn_guess(pictures, z)
    return replace(
        model,
        pixels_mean=mean.astype(np.float32),
        pixels_basis=matrix.astype(np.float32),
        guess_mean=z.mean(axis=0).astype(np.float32),
        guess_deviation=deviation.astype(np.float32),
    )
