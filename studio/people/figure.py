"""From a subject's parameters to a lit bust in our world."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from studio.assets import AssetFolder, Proxy
from studio.clothes.dress import clothes_parts
from studio.clothes.garments import CUTS, carried_share, garment_parts
from studio.clothes.hats import HATS, HatShape, hat_parts
from studio.drawing.scene import Part, Scene, flatten
from studio.hair.crop import crop
from studio.looks.lighting import STUDIO, Light, bake_lights
from studio.looks.pose import Pose, expression_units, softened, turn_head
from studio.people.body import joint, shaped_vertices
from studio.people.bust import bust
from studio.people.face import (
    eye_parts,
    finish_eyes,
    finish_mouth,
    glasses_parts,
    hair_cards,
    mouth_parts,
)
from studio.people.hair import beard_parts, hair_parts
from studio.people.placement import HEAD_HEIGHT, HEAD_MIDDLE, placement
from studio.people.skin import skin_part
from studio.people.subject import Subject

CUT_BELOW_CHIN = 0.46  # in head heights
CUT_ASIDE = 0.8  # in head heights
_CHIN = HEAD_MIDDLE - HEAD_HEIGHT / 2
_LOWEST = _CHIN - CUT_BELOW_CHIN * HEAD_HEIGHT


def build_scene(
    assets: AssetFolder, subject: Subject, texture_size: int = 2048, pose: Pose | None = None
) -> Scene:
    """The finished bust: shaped, dressed, posed, lit, cut, as flat arrays.

    Args:
        texture_size: largest texture side; larger pictures are reduced.
        pose: expression, head rotation and gaze; the resting face looking ahead by default.
    """
    return build_scenes(assets, subject, texture_size, pose)[0]


def build_scenes(
    assets: AssetFolder,
    subject: Subject,
    texture_size: int = 2048,
    pose: Pose | None = None,
    lights: tuple[Light, ...] = (STUDIO,),
) -> list[Scene]:
    """`build_scene` under each of `lights`, for little more than under one."""
    built = build_parts(assets, subject, texture_size, pose, lights)
    return [flatten(parts) for parts in built]


def build_parts(
    assets: AssetFolder,
    subject: Subject,
    texture_size: int = 2048,
    pose: Pose | None = None,
    lights: tuple[Light, ...] = (STUDIO,),
) -> list[list[Part]]:
    """The parts of `build_scenes` before they are flattened."""
    parts, gap = unlit_parts(assets, subject, texture_size, pose)
    out = []
    for baked in bake_lights(parts, lights):
        lit = [replace(part, light=light) for part, light in zip(parts, baked, strict=True)]
        out.append(_finished(lit, gap))
    return out


def _finished(parts: list[Part], gap: float) -> list[Part]:
    """Lit parts with their eyes, mouth and cuts; see `unlit_parts` for the gap."""
    finish_eyes(parts)
    finish_mouth(parts, gap)
    planes = [
        (np.array([1.0, 0.0, 0.0]), CUT_ASIDE * HEAD_HEIGHT),
        (np.array([-1.0, 0.0, 0.0]), CUT_ASIDE * HEAD_HEIGHT),
        (np.array([0.0, -1.0, 0.0]), -_LOWEST),
    ]
    return crop(parts, planes)


def unlit_parts(
    assets: AssetFolder, subject: Subject, texture_size: int, pose: Pose | None
) -> tuple[list[Part], float]:
    """The parts before light falls on them, and how far the lips stand apart, world units."""
    pose = pose or Pose()
    template = bust(assets)
    resting = shaped_vertices(assets, subject.shape)
    to_house = placement(assets, resting)
    resting = to_house(resting)
    posed = softened(expression_units(assets, pose.expression), subject.shape.age)
    units = {**subject.shape.expression, **posed}
    points = to_house(shaped_vertices(assets, replace(subject.shape, expression=units)))

    upper_lip, lower_lip = points[list(template.lip_middles)]
    gap = float(upper_lip[1] - lower_lip[1])

    def fit(proxy: Proxy) -> np.ndarray:
        return proxy.fit(points)

    own = subject.clothes in CUTS
    garment = None if own else assets.proxy(assets.proxies("clothes")[subject.clothes])
    small = texture_size // 2
    skin = skin_part(assets, subject, points, resting, garment, texture_size)
    eyes = eye_parts(assets, subject, fit(assets.proxy(assets.eyes())), pose, small)
    pivot = joint(assets, points, "neck")
    share = (template.matrix @ template.head_share)[skin.source]
    if garment is None:
        clothes, hidden = garment_parts(subject, skin, pivot, share, _LOWEST, small)
    else:
        low = _LOWEST - 0.3 * HEAD_HEIGHT
        clothes = clothes_parts(subject, garment, fit(garment), pivot, low, small)
        hidden = np.zeros(len(skin.positions), dtype=bool)
    hat = None
    if subject.hat != "none":
        hat = HatShape(HATS[subject.hat], skin, template.ears)
    on_head = [
        *hair_parts(assets, subject, points, (skin, clothes, eyes, hat), texture_size),
        *(hat_parts(subject, hat, small) if hat else []),
        *beard_parts(assets, subject, skin, (template.matrix @ resting)[skin.source], texture_size),
        *eyes,
        *hair_cards(assets, subject, fit, resting),
        *mouth_parts(assets, fit, resting, template.lip_middles, gap, texture_size // 4),
        *glasses_parts(subject, skin, eyes, template.ears),
    ]
    bound = [(skin, share)] + [(part, _rigid_share(part)) for part in on_head]
    if own:
        bound += [(part, carried_share(part)) for part in clothes]
    _turn(bound, pivot, pose)
    skin.triangles = skin.triangles[~hidden[skin.triangles].all(1)]
    return [skin, *clothes, *on_head], gap


def _rigid_share(part: Part) -> np.ndarray:
    """What is bound to the head follows it wholly; long hair less where it lies on the body."""
    if part.label != "hair":
        return np.ones(len(part.positions))
    below = np.clip((_CHIN + 0.05 - part.positions[:, 1]) / 0.45, 0, 1)
    return 1 - 0.6 * below


def _turn(bound: list[tuple[Part, np.ndarray]], pivot: np.ndarray, pose: Pose) -> None:
    """Turn the head in place; normals follow."""
    if not (pose.yaw or pose.pitch or pose.roll):
        return
    for part, share in bound:
        part.normals = turn_head(part.normals, share, np.zeros(3), pose)
        part.positions = turn_head(part.positions, share, pivot, pose)
