"""Hair and beard of a subject, in its style and colour."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from runtime.seeds import numpy_generator
from studio.assets import AssetFolder
from studio.clothes.hats import HatShape
from studio.drawing.scene import Part
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
from studio.hair.curls import CURL_STYLES, CurlStyle, curl_parts
from studio.hair.shells import BEARD_STYLES, SHELL_STYLES, hairline, shell_parts
from studio.people.bust import bust
from studio.people.skin import beard_region, lay, paint_scalp
from studio.people.subject import Subject

_GROWN = {**SHELL_STYLES, **CURL_STYLES, **COMBED_STYLES}


def hair_parts(
    assets: AssetFolder,
    subject: Subject,
    points: np.ndarray,
    around: tuple[Part, list[Part], list[Part], HatShape | None],
    size: int,
) -> list[Part]:
    """Hair of the subject's style among skin, clothes, eyes and hat; paints the scalp under it."""
    skin, clothes, eyes, hat = around
    if subject.hair == "bald":
        return []
    colour = srgb_to_linear(np.array(subject.hair_colour))
    ears = bust(assets).ears
    if subject.hair in _GROWN:
        out, under = _grown_hair(subject, skin, ears, colour, size)
    elif subject.hair in DRAPE_STYLES:
        out, under = _draped_hair(subject, skin, cover_of(skin, ears, clothes), colour, size)
    else:
        cover = cover_of(skin, ears, clothes)
        out, under = _fitted_hair(assets, subject, points, (skin, eyes, hat), cover, colour, size)
    if hat is not None:
        for part in out:
            part.positions = hat.flatten(part.positions)
    paint_scalp(skin, under, ears, subject)
    return out


def _draped_hair(
    subject: Subject,
    skin: Part,
    cover: tuple[np.ndarray, np.ndarray],
    colour: np.ndarray,
    size: int,
) -> tuple[list[Part], np.ndarray]:
    """Parted hair that hangs over `cover` (`cover_of`), and points of the scalp under it."""
    out = drape_parts(
        skin,
        cover,
        DRAPE_STYLES[subject.hair],
        subject.hair_length,
        subject.hair_mirrored,
        colour,
        numpy_generator(subject.seed, "hair", subject.index),
        size // 2,
    )
    for part in out:
        part.positions = style_cards(part.positions, replace(subject, hair_length=1.0), 0.0)
        part.positions = lift_off(part.positions, *cover)
    return out, np.concatenate([opaque_samples(part) for part in out])


def _grown_hair(
    subject: Subject, skin: Part, ears: np.ndarray, colour: np.ndarray, size: int
) -> tuple[list[Part], np.ndarray]:
    """Hair that stands on the scalp, and points of the scalp under it."""
    style = _GROWN[subject.hair]
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
    return out, skin.positions[region > 0.5]


def _fitted_hair(
    assets: AssetFolder,
    subject: Subject,
    points: np.ndarray,
    around: tuple[Part, list[Part], HatShape | None],
    cover: tuple[np.ndarray, np.ndarray],
    colour: np.ndarray,
    size: int,
) -> tuple[list[Part], np.ndarray]:
    """Hair of the assets among skin, eyes and hat, and points of the scalp under it."""
    skin, eyes, hat = around
    proxy = assets.proxy(assets.proxies("hair")[subject.hair])
    fitted = fit_cards(assets, proxy, points, subject.hair_mirrored)
    mesh, fitted = refined_cards(proxy, fitted)
    _, nearest = cKDTree(skin.positions).query(fitted)
    line = hairline(skin.positions, subject.receding)
    fitted = style_cards(fitted, subject, line[nearest])
    if hat is not None:
        fitted = hat.flatten(fitted)
    fitted = lift_off(fitted, *cover)
    part = card_part(proxy, mesh, fitted, colour, size // 2)
    part = clear_face(part, [0.5 * (eye.positions.min(0) + eye.positions.max(0)) for eye in eyes])
    under = opaque_samples(part)
    soften_hairline(part, skin, line)
    return [part], under


def beard_parts(
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
