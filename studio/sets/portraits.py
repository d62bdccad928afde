"""Portraits as photographs are, drawn beside a subject's views.

Two portraits at a time share an expression, the first two the resting face: a scene is built once
and lit by both their lights. Camera, lens, noise and cut-out are each portrait's own.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from captures.photographs import portrait_numbers, read_portrait, write_portrait
from runtime.errors import UserError
from runtime.seeds import numpy_generator
from studio.assets import AssetFolder
from studio.looks.photograph import sample_photograph, take
from studio.looks.portrait_camera import portrait_camera, sample_framing
from studio.looks.pose import EXPRESSIONS, Pose
from studio.looks.random_light import harmonics, sample_light
from studio.people.random_subject import sample_subject
from studio.people.subject import rounded
from studio.sets.records import POPULATION, subject_name
from studio.sets.render_subject import texture_size

if TYPE_CHECKING:
    from studio.sets.render_config import StudioRenderConfig

_SHARED = 2  # portraits that share an expression
# What people do before a camera, with how often.
_FACES = {"resting": 0.3, "smile": 0.34, "laugh": 0.14, "speaking": 0.12, "surprise": 0.05}
_FACES |= {"sadness": 0.05}


def draw_portraits(assets: AssetFolder, config: StudioRenderConfig, index: int) -> None:
    """Draw the portraits of subject `index` that its folder lacks.

    Raises:
        UserError: there are portraits that were drawn with other settings.
    """
    folder = Path(config.output_dir) / subject_name(index)
    missing = missing_portraits(config, folder)
    for group in sorted({number // _SHARED for number in missing}):
        _draw_group(assets, config, index, folder, group, missing)


def missing_portraits(config: StudioRenderConfig, folder: Path) -> list[int]:
    """Numbers of the portraits that are still to be drawn into a subject's folder.

    Raises:
        UserError: there are portraits that were drawn with other settings.
    """
    there = portrait_numbers(folder)
    if there and read_portrait(folder, there[0]).record.get("render") != _made_with(config):
        raise UserError(
            f"the portraits of {folder} were drawn with other settings or by another version; "
            "delete its folder portraits/ or choose another output_dir"
        )
    return [number for number in range(config.portraits) if number not in there]


def _made_with(config: StudioRenderConfig) -> dict[str, Any]:
    """The settings that decide a portrait."""
    size = config.portrait_size or config.size
    return {"population": POPULATION, "portraits": 1, "seed": config.seed, "size": size}


def _draw_group(
    assets: AssetFolder,
    config: StudioRenderConfig,
    index: int,
    folder: Path,
    group: int,
    missing: list[int],
) -> None:
    from studio.drawing.raster import Camera, draw
    from studio.people.figure import build_scenes

    size = config.portrait_size or config.size
    pose = sample_face(numpy_generator(config.seed, "portrait face", index, group), group)
    numbers = [n for n in range(group * _SHARED, (group + 1) * _SHARED) if n in missing]
    streams = {n: numpy_generator(config.seed, "portrait", index, n) for n in numbers}
    lights = tuple(sample_light(streams[n]) for n in numbers)
    subject = sample_subject(assets, config.seed, index)
    scenes = build_scenes(assets, subject, texture_size(size), pose, lights)
    for number, light, scene in zip(numbers, lights, scenes, strict=True):
        rng = streams[number]
        framing, photograph = sample_framing(rng), sample_photograph(rng)
        cameras = portrait_camera(framing, size)
        picture = draw(scene, Camera.of(cameras, 0), 3)
        record = {
            "render": _made_with(config),
            "camera": {"relative": rounded(asdict(framing))},
            "light": rounded(asdict(light)) | {"harmonics": harmonics(light).round(4).tolist()},
            "expression": rounded(asdict(pose)),
            "photograph": rounded(asdict(photograph)),
        }
        write_portrait(folder, number, take(picture, photograph, rng), cameras, record)


def sample_face(rng: np.random.Generator, group: int) -> Pose:
    """The expression of a group of portraits; the first is the resting face, looking ahead."""
    if group == 0:
        return Pose()
    share = np.array(list(_FACES.values()))
    name = list(_FACES)[int(rng.choice(len(_FACES), p=share / share.sum()))]
    strength = float(rng.uniform(0.35, 0.95))
    yaw, pitch, roll, gaze_yaw, gaze_pitch = rng.normal(0, 1, 5).clip(-2, 2) * [3, 2, 2, 4, 2]
    return Pose(
        name,
        {unit: weight * strength for unit, weight in EXPRESSIONS[name].items()},
        *map(float, (yaw, pitch, roll, gaze_yaw, gaze_pitch)),
    )
