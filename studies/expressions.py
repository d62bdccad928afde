"""``triavatar study expressions``: faces that move, against people whose true heads are known.

Legend: H W picture size in pixels.

::

    <output_dir>/expressions.md, expressions.json   the tables
    <output_dir>/expressions.jpg                    what was compared: truth above, avatar below
    <output_dir>/people/<person>.json, .png         measures and pictures of each
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from captures.cameras import Cameras
from captures.multiview import MultiViewSet
from renderer.fitted_set import FittedSet
from runtime.config import check_settings, setting
from runtime.described import read_described
from runtime.errors import UserError
from runtime.files import write_json, write_text
from runtime.progress import progress
from runtime.runs import RunFolder
from studies.expression_measures import (
    Measures,
    PersonMeasures,
    markdown,
    picture_measures,
    registration_measures,
    surface_distance,
)
from studio.assets import AssetFolder
from studio.drawing.raster import Camera, draw
from studio.looks.pose import Pose
from studio.people.bare_head import bare_head, person
from studio.people.figure import build_scene
from studio.people.subject import Subject
from triavatar.export.libraries import check_packages
from triavatar.rig.expression import Expression, parse_expression
from triavatar.rig.head_model import MM_PER_UNIT, find_head_model
from triavatar.rig.poser import Poser
from triavatar.rig.train_rig import set_subjects
from triavatar.sheets import on_white, save_picture
from triavatar.views import still_cameras

AZIMUTH, ELEVATION, DISTANCE = 15.0, 3.0, 3.7
SUPERSAMPLING = 2
GAP = 16
"""Pixels between the two columns of the sheet."""
TEXTURE = 512
"""Largest side of the true people's textures."""


@dataclass
class StudyExpressionsConfig:
    """Settings of ``triavatar study expressions``."""

    root: Path
    """Multi-view set that `studio render` made; its people's true heads are drawn again."""
    triplanes: Path
    """Triplanes of some of its people: fitted ones, or the folder of avatars that `generate --root`
    made of their portraits."""
    output_dir: Path
    """Run folder: expressions.md, expressions.json, expressions.jpg."""
    identities: Literal["train", "validation", "test"] = "test"
    """Split of the set that the people are taken from."""
    n_people: int = setting(10, resumable=True, at_least=1)
    """Only the first so many of them."""
    size: int = setting(128, at_least=16, at_most=1024)
    """Width and height of the pictures compared."""
    assets: Path | None = None
    """Folder with the clones makehuman/ and makehuman-assets/; default: $TRIAVATAR_ASSETS."""
    rig: Path | None = None
    """Head model: folder that `triavatar train-rig` wrote, or a model with the part rig; the
    shipped one without."""


def cases(rest: Mapping[str, float]) -> dict[str, tuple[Pose, Expression]]:
    """What is compared: the studio's pose, and the expression that should look the same.

    Args:
        rest: weights of the studio's expression units that the person's face has at rest; blend
            shapes add to them, poses replace them.
    """
    shut = {"eye-left-closure": 1.0, "eye-right-closure": 1.0}
    shut |= {"eye-left-opened-up": 0.0, "eye-right-opened-up": 0.0}
    more = 1 - rest.get("mouth-corner-puller", 0.0)
    typed = {
        "jawOpen=0.6": (Pose(expression={"mouth-open": 0.6}), "jawOpen=0.6"),
        "both eyes shut": (Pose(expression=shut), "eyeBlinkLeft,eyeBlinkRight"),
        "smile": (
            Pose(expression={"mouth-corner-puller": 1.0}),
            f"mouthSmileLeft={more:.3f},mouthSmileRight={more:.3f}",
        ),
        "head turned by 15°, gaze by 10°": (Pose(yaw=15, gaze_yaw=10), "headYaw=15,gazeYaw=10"),
    }
    return {name: (pose, parse_expression(text)) for name, (pose, text) in typed.items()}


def in_columns(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures of one size [H, W, 3] below each other in two columns, on white."""
    half = (len(pictures) + 1) // 2
    height, width = pictures[0].shape[:2]
    out = np.full((half * height, 2 * width + GAP, 3), 255, dtype=np.uint8)
    for at, picture in enumerate(pictures):
        top, left = at % half * height, at // half * (width + GAP)
        out[top : top + height, left : left + width] = picture
    return out[:, : width if len(pictures) == 1 else None]


class _Study:
    """What all people need."""

    def __init__(self, config: StudyExpressionsConfig, fitted: FittedSet) -> None:
        self.assets, self.fitted = AssetFolder(config.assets), fitted
        self.topology = bare_head(self.assets)
        self.model = find_head_model(config.rig)
        self.decoder = fitted.decoder()
        self.camera: Cameras = still_cameras((AZIMUTH,), config.size, ELEVATION, DISTANCE)

    def true_picture(self, subject: Subject, pose: Pose) -> np.ndarray:
        """[H, W, 3] in [0, 1] on white."""
        scene = build_scene(self.assets, subject, TEXTURE, pose)
        drawn = draw(scene, Camera.of(self.camera, 0), SUPERSAMPLING)
        return on_white(drawn).astype(np.float32) / 255

    def measure(self, name: str, subject: Subject) -> tuple[dict[str, Measures], np.ndarray]:
        """Measures of a person, and two rows of pictures, uint8: the truth, the avatar."""
        poser = Poser.of(self.fitted.load(name), self.decoder, self.model)
        truth = person(self.assets, self.topology, subject.shape)[0]
        skin = poser.moving.head.registered.skin
        found = {"registration": registration_measures(self.model, skin, truth)}
        shell = poser.moving.shell
        if len(shell.faces):
            scene = build_scene(self.assets, subject, TEXTURE)
            away = surface_distance(shell.vertices, scene.positions, scene.triangles)
            found["registration"]["outside"] = float(MM_PER_UNIT * away.mean())

        def picture(expression: Expression) -> np.ndarray:
            return poser.pictures(self.camera, expression)[0].astype(np.float32) / 255

        rest = self.true_picture(subject, Pose()), picture(Expression())
        pairs = [rest]
        for case, (pose, expression) in cases(subject.shape.expression).items():
            pairs.append((self.true_picture(subject, pose), picture(expression)))
            found[case] = picture_measures(rest, pairs[-1])
        rows = [np.concatenate([pair[k] for pair in pairs], axis=1) for k in (0, 1)]
        return found, (np.concatenate(rows) * 255 + 0.5).astype(np.uint8)


def study_expressions(config: StudyExpressionsConfig) -> None:
    """Register the head model to people's avatars, move them, and compare with the studio.

    Raises:
        UserError: assets, set, triplanes or the head model are missing or don't belong together.
    """
    check_settings(config)
    check_packages(("ply",))
    views, fitted = MultiViewSet(config.root), FittedSet.open(config.triplanes)
    have = set(fitted.names)
    people = [name for name in views.split(config.identities) if name in have][: config.n_people]
    if not people:
        raise UserError(
            f"{config.triplanes} holds triplanes of nobody in the split {config.identities} of "
            f"{config.root}; name another --identities, or fit or generate them first."
        )
    study = _Study(config, fitted)
    subjects = set_subjects(views, people, study.assets)
    run = RunFolder(config.output_dir, config, "study expressions")
    rows, pictures = [], []
    for name in progress(people, desc="people", unit="person"):
        file = run.path / "people" / f"{name}.json"
        if not file.is_file():
            found, picture = study.measure(name, subjects[name])
            save_picture(file.with_suffix(".png"), picture)
            write_json(file, {"measures": found})
        rows.append(read_described(PersonMeasures, file).measures)
        pictures.append(np.asarray(Image.open(file.with_suffix(".png"))))
    save_picture(run.path / "expressions.jpg", in_columns(pictures))
    write_json(run.path / "expressions.json", dict(zip(people, rows, strict=True)))
    write_text(run.path / "expressions.md", markdown(rows))
    run.log("\n" + markdown(rows))
