"""The skin: its surface, its texture (tone, freckles, moles) and what is painted on it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from runtime.seeds import numpy_generator
from studio.assets import AssetFolder, Proxy
from studio.drawing.scene import Part, part_from_mesh, vertex_normals
from studio.drawing.textures import (
    SRGB_TO_LINEAR,
    Texture,
    build_mips,
    encode,
    read_texture,
    srgb_to_linear,
    tint_towards,
)
from studio.hair.shells import hairline
from studio.people.bust import Bust, bust
from studio.people.palette import skin_tone
from studio.people.subject import Subject


def skin_part(
    assets: AssetFolder,
    subject: Subject,
    points: np.ndarray,
    resting: np.ndarray,
    garment: Proxy | None,
    size: int,
) -> Part:
    """The bust's skin without the faces hidden by `garment`, if any.

    Args:
        points: [V, 3] base-mesh vertices in our world.
        resting: [V, 3] those of the resting face, on which moles and stubble have their places.
        size: texture side.
    """
    template = bust(assets)
    hidden = np.zeros(len(points), dtype=bool)
    if garment is not None:
        hidden[garment.delete] = True
    keep = ~hidden[template.coarse.faces].all(1)
    positions = template.matrix @ points
    unmoved = template.matrix @ resting
    texture = _texture(assets, template, subject, unmoved, size)
    part = part_from_mesh(
        template.refined.select(keep[template.parent]), positions, "skin", texture
    )
    # Normals come from the whole surface, so that they don't bend where faces are hidden.
    whole = vertex_normals(positions, template.source[template.triangles])
    part.normals = whole[part.source]
    _paint_face(part, template, subject, unmoved[part.source])
    return part


def lay(part: Part, colour: np.ndarray, cover: np.ndarray) -> None:
    """Lay `colour` (linear [3]) with `cover` [V] over what is painted on `part` already."""
    under = part.paint[:, 3] * (1 - cover)
    total = under + cover
    share = (cover / np.maximum(total, 1e-9))[:, None]
    part.paint[:, :3] = part.paint[:, :3] * (1 - share) + colour * share
    part.paint[:, 3] = total


def paint_scalp(part: Part, hair_points: np.ndarray, ears: np.ndarray, subject: Subject) -> None:
    """Colour the skin right under the hair, so that gaps between cards show no bare scalp."""
    line = hairline(part.positions)
    # Skin textures have hair painted down the nape and temples, in a colour of their own.
    bare = np.clip((line + 0.26) / 0.1, 0, 1) * np.clip((0.26 - part.positions[:, 2]) / 0.1, 0, 1)
    bare[np.isin(part.source, ears)] = 0.0
    lay(part, srgb_to_linear(skin_tone(subject.tone)), 0.85 * bare)
    distance, _ = cKDTree(hair_points).query(part.positions, distance_upper_bound=0.08)
    above = np.clip(hairline(part.positions, subject.receding) / 0.1 + 0.5, 0, 1)
    cover = np.clip(1.4 - distance / 0.05, 0, 1) * above * 0.9
    cover[np.isin(part.source, ears)] = 0.0
    lay(part, srgb_to_linear(np.array(subject.hair_colour)) * 0.7, cover)


def beard_region(part: Part, resting: np.ndarray, template: Bust, style: str) -> np.ndarray:
    """Return how much hair of beard `style` grows at each vertex, 0..1.

    Args:
        part: the skin; resting: [V, 3] its vertices in the resting face.
        style: "moustache", "goatee" or anything else for a full beard.
    """
    p = resting
    lips = template.lips[part.source]
    mouth = p[lips > 0.5]
    centre = 0.5 * (mouth.min(0) + mouth.max(0))
    half_width = 0.5 * (mouth[:, 0].max() - mouth[:, 0].min())
    x, y, z = np.abs(p[:, 0] - centre[0]), p[:, 1] - centre[1], p[:, 2]
    front = mouth[:, 2].max()

    def soft(value: np.ndarray, width: float) -> np.ndarray:
        return np.clip(0.5 + value / width, 0, 1)

    # Under the nose, thinner towards the ends and in the philtrum.
    along = x / half_width
    moustache = soft(1.05 - along, 0.35) * soft(y - 0.012 + 0.008 * along**2, 0.03) * (z > 0)
    moustache *= soft(0.085 - 0.035 * along**2 - y, 0.05) * (1 - 0.4 * np.exp(-((x / 0.018) ** 2)))
    # Down from a line that climbs from the mouth's corners to the sideburns before the ears.
    back = np.clip((front - 0.12 - z) / 0.4, 0, 1)
    ears = np.isin(part.source, template.ears)
    sideburn = soft(0.06 - np.abs(z - p[ears, 2].max() - 0.035), 0.06) * soft(0.16 - y, 0.1)
    cheek_line = -0.02 + 0.34 * back**1.3
    full = np.maximum(soft(cheek_line - y, 0.11), sideburn * (x > 0.2))
    full *= soft(y + 0.23 - 0.1 * back, 0.11) * soft(z - 0.03, 0.16)
    if style == "moustache":
        region = moustache
    elif style == "goatee":
        # Round the mouth: strips from the moustache's ends, and the chin.
        strips = soft(0.2 - np.abs(along - 1.1), 0.25) * soft(0.03 - y, 0.04) * soft(y + 0.15, 0.1)
        chin = soft(1.0 - along - 3.0 * np.maximum(-0.14 - y, 0), 0.4) * soft(-0.085 - y, 0.07)
        patch = soft(0.035 - x, 0.04)
        region = np.maximum(moustache, full * np.maximum.reduce([strips, chin, patch]))
    else:
        region = np.maximum(moustache, full)
    return np.where(ears, 0.0, region * np.clip(1 - 1.5 * lips, 0, 1))


def _paint_face(part: Part, template: Bust, subject: Subject, resting: np.ndarray) -> None:
    tone = srgb_to_linear(skin_tone(subject.tone))
    if subject.hair == "bald":  # the textures' scalps are dark and red, for hair to lie on
        scalp = np.clip(hairline(resting) / 0.15, 0, 1)
        lay(part, tone * [1.0, 0.95, 0.93], 0.8 * scalp)
    # The textures' lids are made up.
    plain = 0.7 if subject.is_man or subject.shape.age < 15 else 0.45
    lay(part, tone * [0.97, 0.9, 0.88], plain * template.lids[part.source])
    lay(part, tone * [1.0, 0.62, 0.6], subject.blush * template.cheeks[part.source])
    if subject.stubble > 0:
        region = beard_region(part, resting, template, "full")
        shadow = 0.6 * srgb_to_linear(np.array(subject.hair_colour)) + 0.25 * tone
        lay(part, shadow, subject.stubble * region)
    bare = 0.12 if subject.is_man else 0.18
    lips = template.lips[part.source] * (bare + 0.35 * subject.tone + subject.lipstick)
    rouge = np.array([0.82 - 0.2 * subject.lipstick, 0.48, 0.48])
    lay(part, tone * rouge, np.clip(lips, 0, 0.85))


def _texture(
    assets: AssetFolder, template: Bust, subject: Subject, positions: np.ndarray, size: int
) -> Texture:
    tone = srgb_to_linear(skin_tone(subject.tone))
    path = assets.skins().get(subject.skin)
    if path is None:
        image = procedural_skin(tone, subject, size)
    else:
        image = tint_towards(read_texture(path, size), tone, _median(path))
    if subject.freckles or subject.moles:
        _spot(image, template, subject, positions)
    return build_mips(image)


@lru_cache(maxsize=16)
def _median(path: Path) -> np.ndarray:
    """Median linear colour of a skin texture."""
    image = read_texture(path, 256)
    return np.median(SRGB_TO_LINEAR[image[..., :3]].reshape(-1, 3), axis=0)


def procedural_skin(tone: np.ndarray, subject: Subject, size: int) -> np.ndarray:
    """A mottled skin of colour `tone` (linear), uint8 RGBA, for assets without skin textures."""
    rng = numpy_generator(subject.seed, "skin", subject.index)

    def mottle(sigma: float) -> np.ndarray:
        field = gaussian_filter(rng.standard_normal((size, size)).astype(np.float32), sigma)
        return field / field.std()

    light = 1 + 0.03 * mottle(size / 500) + 0.018 * mottle(size / 60)
    red = 0.03 * mottle(size / 90)
    colour = np.stack([light * (1 + red), light * (1 - 0.5 * red), light * (1 - red)], -1) * tone
    return np.concatenate([encode(colour), np.full((size, size, 1), 255, dtype=np.uint8)], -1)


def _spot(image: np.ndarray, template: Bust, subject: Subject, positions: np.ndarray) -> None:
    """Stamp freckles over nose and cheeks and a few moles anywhere on the face, in place."""
    rng = numpy_generator(subject.seed, "spots", subject.index)
    corners = positions[template.source[template.triangles]]
    middle = corners.mean(1)
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    facing = (middle[:, 2] > 0.15) & (np.abs(middle[:, 1] - 0.05) < 0.33)
    belt = np.exp(-(((middle[:, 1] - 0.02) / 0.11) ** 2) - (middle[:, 0] / 0.3) ** 2)
    for count, weight, radius, depth in (
        (subject.freckles, area * facing * belt, 0.0028, 0.3),
        (subject.moles, area * facing, 0.0034, 0.6),
    ):
        if not count or weight.sum() <= 0:
            continue
        chosen = rng.choice(len(area), size=count, p=weight / weight.sum())
        bary = rng.dirichlet([1.0, 1.0, 1.0], size=count)
        uv = (template.uv[template.triangles[chosen]] * bary[..., None]).sum(1)
        extent = np.ptp(template.uv[template.triangles[chosen]], axis=1).mean(1)
        scale = extent / np.sqrt(area[chosen] + 1e-12)  # texture units per world unit
        for place, per_unit, draw in zip(uv, scale, rng.random((count, 2)), strict=True):
            _stamp(image, place, radius * per_unit * (0.6 + 0.9 * draw[0]), depth * draw[1])


def _stamp(image: np.ndarray, uv: np.ndarray, radius: float, depth: float) -> None:
    size = image.shape[0]
    r = max(radius * size, 0.7)
    cx, cy = uv[0] * size, (1 - uv[1]) * size
    reach = int(3 * r) + 1
    x0, x1 = max(int(cx) - reach, 0), min(int(cx) + reach + 1, size)
    y0, y1 = max(int(cy) - reach, 0), min(int(cy) + reach + 1, size)
    if x0 >= x1 or y0 >= y1:
        return
    y, x = np.mgrid[y0:y1, x0:x1] + 0.5
    shape = depth * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * r * r))[..., None]
    patch = image[y0:y1, x0:x1, :3]
    patch[:] = np.round(patch * (1 - shape * np.array([0.55, 0.8, 0.95])))
