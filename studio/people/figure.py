"""From a subject's parameters to a lit bust in our world."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from runtime.seeds import numpy_generator
from studio.assets import AssetFolder, Proxy
from studio.clothes.dress import clothes_parts
from studio.clothes.garments import CUTS, carried_share, garment_parts
from studio.clothes.hats import HATS, HatShape, hat_parts
from studio.drawing.scene import Part, Scene, flatten
from studio.drawing.textures import srgb_to_linear
from studio.hair.cards import (
    card_part,
    clear_face,
    cover_of,
    fit_cards,
    lift_off,
    opaque_samples,
    refined_cards,
    soften_hairline,
    style_cards,
)
from studio.hair.combed import COMBED_STYLES, DRAPE_STYLES, CombedStyle, combed_parts, drape_parts
from studio.hair.crop import crop
from studio.hair.curls import CURL_STYLES, CurlStyle, curl_parts
from studio.hair.shells import BEARD_STYLES, SHELL_STYLES, hairline, shell_parts
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
from studio.people.placement import HEAD_HEIGHT, HEAD_MIDDLE, placement
from studio.people.skin import beard_region, lay, paint_scalp, skin_part
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
        *_hair(assets, subject, points, (skin, clothes, eyes, hat), texture_size),
        *(hat_parts(subject, hat, small) if hat else []),
        *_beard(assets, subject, skin, (template.matrix @ resting)[skin.source], texture_size),
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


def _hair(
    assets: AssetFolder,
    subject: Subject,
    points: np.ndarray,
    around: tuple[Part, list[Part], list[Part], HatShape | None],
    size: int,
) -> list[Part]:
    """Hair of the subject's style among skin, clothes, eyes and hat; paints the scalp under it."""
    skin, clothes, eyes, hat = around
    colour = srgb_to_linear(np.array(subject.hair_colour))
    ears = bust(assets).ears
    if subject.hair == "bald":
        return []
    grown = {**SHELL_STYLES, **CURL_STYLES, **COMBED_STYLES}
    if subject.hair in DRAPE_STYLES:
        out = drape_parts(
            skin,
            cover_of(skin, ears, clothes),
            DRAPE_STYLES[subject.hair],
            subject.hair_length,
            subject.hair_mirrored,
            colour,
            numpy_generator(subject.seed, "hair", subject.index),
            size // 2,
        )
        line = hairline(skin.positions)
        for part in out:
            part.positions = style_cards(part.positions, replace(subject, hair_length=1.0), 0.0)
            part.positions = lift_off(part.positions, *cover_of(skin, ears, clothes))
        under = np.concatenate([opaque_samples(part) for part in out])
    elif subject.hair in grown:
        style = grown[subject.hair]
        height = hairline(skin.positions, subject.receding)
        region = np.clip(0.5 + height / 0.09, 0, 1)
        region[np.isin(skin.source, ears)] = 0.0
        rise = np.clip(height / (0.05 + 0.8 * style.height), 0, 1)
        # Hair stands less high at the nape and temples than on the crown.
        sag = np.clip(0.45 + 0.9 * (skin.positions[:, 1] + 0.05), 0.3, 1.0)
        rng = numpy_generator(subject.seed, "hair", subject.index)
        rise = (0.3 + 0.7 * rise) * sag
        if isinstance(style, CurlStyle):
            rise = rise * (0.6 + 0.4 * subject.hair_length)
            out = curl_parts(skin, region, rise, style, colour, rng, min(size, 1024))
        elif isinstance(style, CombedStyle):
            rise = np.clip(height / 0.12, 0, 1)
            mirrored = subject.hair_mirrored
            out = combed_parts(skin, region, rise, style, mirrored, colour, rng, size // 2)
        else:
            out = shell_parts(skin, region, rise, style, colour, rng, min(size, 1024))
        under = skin.positions[region > 0.5]
    else:
        proxy = assets.proxy(assets.proxies("hair")[subject.hair])
        fitted = fit_cards(assets, proxy, points, subject.hair_mirrored)
        mesh, fitted = refined_cards(proxy, fitted)
        _, nearest = cKDTree(skin.positions).query(fitted)
        line = hairline(skin.positions, subject.receding)
        fitted = style_cards(fitted, subject, line[nearest])
        if hat is not None:
            fitted = hat.flatten(fitted)
        fitted = lift_off(fitted, *cover_of(skin, ears, clothes))
        out = [card_part(proxy, mesh, fitted, colour, size // 2)]
        centres = [0.5 * (eye.positions.min(0) + eye.positions.max(0)) for eye in eyes]
        out = [clear_face(part, centres) for part in out]
        under = opaque_samples(out[0])
        soften_hairline(out[0], skin, line)
    if hat is not None:
        for part in out:
            part.positions = hat.flatten(part.positions)
    paint_scalp(skin, under, ears, subject)
    return out


def _beard(
    assets: AssetFolder, subject: Subject, skin: Part, resting: np.ndarray, size: int
) -> list[Part]:
    if subject.beard == "none":
        return []
    region = beard_region(skin, resting, bust(assets), subject.beard)
    # Beards are browner than fair hair, and never as black as a head of hair, which is denser.
    colour = srgb_to_linear(np.array(subject.hair_colour)) * [0.74, 0.66, 0.6]
    colour = colour + np.array([0.012, 0.01, 0.0085])
    rng = numpy_generator(subject.seed, "beard", subject.index)
    style = BEARD_STYLES[subject.beard]
    lay(skin, colour, 0.6 * region**1.5)
    return shell_parts(skin, region, region, style, colour, rng, min(size, 1024))
