"""From a subject's parameters to a lit bust in the house world."""

from __future__ import annotations

import colorsys
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from studio.assets import AssetFolder, Proxy, diffuse_texture
from studio.body import joint, shaped_vertices
from studio.crop import crop
from studio.hair import (
    SHELL_STYLES,
    card_part,
    fit_cards,
    hairline,
    lift_off_skin,
    opaque_samples,
    shell_parts,
)
from studio.lighting import bake_light
from studio.obj import PolyMesh
from studio.scene import Part, Scene, flatten, part_from_mesh, triangulate, vertex_normals
from studio.subdivide import subdivision
from studio.subject import Subject, skin_tone
from studio.textures import (
    SRGB_TO_LINEAR,
    Texture,
    build_mips,
    encode,
    read_texture,
    shift_hue,
    solid_texture,
    srgb_to_linear,
    tint_towards,
)

HEAD_HEIGHT = 1.02  # chin to crown in house units
HEAD_MIDDLE = 0.17  # height of the head's middle in house units
CUT_BELOW_CHIN = 0.46  # in head heights
CUT_ASIDE = 0.8  # in head heights


def build_scene(assets: AssetFolder, subject: Subject, texture_size: int = 2048) -> Scene:
    """The finished bust: shaped, dressed, lit, cut, as flat arrays.

    Args:
        texture_size: largest texture side; larger pictures are reduced.
    """
    return flatten(build_parts(assets, subject, texture_size))


def build_parts(assets: AssetFolder, subject: Subject, texture_size: int = 2048) -> list[Part]:
    """The parts of `build_scene` before they are flattened."""
    base = shaped_vertices(assets, subject.shape)
    to_house, scale = _placement(assets, base)
    garment = assets.proxy(assets.proxies("clothes")[subject.clothes])
    skin = _skin(assets, subject, base, garment, to_house, texture_size)
    parts = [
        skin,
        *_clothes(subject, garment, to_house(garment.fit(base)), texture_size),
        *_hair(assets, subject, base, skin, to_house, texture_size),
        _eyes(assets, subject, to_house(assets.proxy(assets.eyes()).fit(base)), texture_size),
        *_face_cards(assets, subject, base, to_house),
        *_teeth(assets, base, to_house, texture_size),
    ]
    bake_light(parts)
    _finish_eyes(parts)
    chin = HEAD_MIDDLE - HEAD_HEIGHT / 2
    planes = [
        (np.array([1.0, 0.0, 0.0]), CUT_ASIDE * HEAD_HEIGHT),
        (np.array([-1.0, 0.0, 0.0]), CUT_ASIDE * HEAD_HEIGHT),
        (np.array([0.0, -1.0, 0.0]), -(chin - CUT_BELOW_CHIN * HEAD_HEIGHT)),
    ]
    return crop(parts, planes)


def _placement(assets: AssetFolder, base: np.ndarray):
    """Map from base-mesh decimetres to the house world: the head's size and place are fixed."""
    mesh = assets.base_mesh()
    body = base[mesh.groups["body"]]
    crown = body[:, 1].max()
    chin = base[_chin_vertex(assets), 1]
    head = body[body[:, 1] > chin]
    scale = HEAD_HEIGHT / (crown - chin)
    neck = joint(assets, base, "neck")
    middle_z = 0.5 * (0.5 * (head[:, 2].min() + head[:, 2].max()) + neck[2])
    origin = np.array([0.0, 0.5 * (crown + chin) - HEAD_MIDDLE / scale, middle_z])

    def to_house(points: np.ndarray) -> np.ndarray:
        return (points - origin) * scale

    return to_house, scale


def _chin_vertex(assets: AssetFolder) -> int:
    """The foremost body vertex on the midline just above the throat."""
    mesh = assets.base_mesh()
    body = mesh.groups["body"]
    p = mesh.vertices[body]
    near = (np.abs(p[:, 0]) < 0.08) & (p[:, 1] > 6.0) & (p[:, 1] < 6.3)
    return int(body[near][np.argmax(p[near, 2])])


@lru_cache(maxsize=2)
def _bust_faces(assets: AssetFolder) -> PolyMesh:
    """Body faces of the base mesh from the chest up, arms to the elbow."""
    mesh = assets.base_mesh()
    body = mesh.select(np.isin(np.arange(len(mesh.faces)), mesh.group_faces["body"]))
    middle = body.vertices[np.maximum(body.faces, 0)].mean(1)
    neck = joint(assets, mesh.vertices, "neck")
    return body.select((middle[:, 1] > neck[1] - 4.5) & (np.abs(middle[:, 0]) < 4.2))


@lru_cache(maxsize=2)
def _bust_subdivision(assets: AssetFolder):
    return subdivision(_bust_faces(assets))


def _skin(assets, subject, base, garment, to_house, texture_size) -> Part:
    coarse = _bust_faces(assets)
    refined, matrix, parent = _bust_subdivision(assets)
    hidden = np.zeros(len(base), dtype=bool)
    hidden[garment.delete] = True
    keep = ~hidden[coarse.faces].all(1)
    positions = to_house(matrix @ base)
    # Normals come from the whole surface, so that they don't bend where faces are hidden.
    part = part_from_mesh(
        refined.select(keep[parent]),
        positions,
        "skin",
        _skin_texture(assets, subject, texture_size),
    )
    source, _, triangles = _whole_triangles(assets)
    whole = np.zeros((len(positions), 3))
    whole = vertex_normals(positions, source[triangles])
    part.normals = whole[part.source]
    return part


@lru_cache(maxsize=2)
def _ear_vertices(assets: AssetFolder) -> np.ndarray:
    """Vertices of the refined bust that belong to the ears."""
    found = [assets.target(f"ears/{side}-ear-trans-up") for side in "lr"]
    moved = np.zeros(len(assets.base_mesh().vertices))
    for index, offset in found:
        size = np.linalg.norm(offset, axis=1)
        moved[index] = size > 0.85 * size.max()
    return np.flatnonzero(_bust_subdivision(assets)[1] @ moved > 0.5)


@lru_cache(maxsize=2)
def _whole_triangles(assets: AssetFolder):
    return triangulate(_bust_subdivision(assets)[0])


def _paint_scalp(part: Part, hair_points: np.ndarray, ears: np.ndarray, subject: Subject) -> None:
    """Colours the skin right under the hair, so that gaps between cards show no bare scalp."""
    distance, _ = cKDTree(hair_points).query(part.positions)
    above = np.clip(hairline(part.positions) / 0.1 + 0.5, 0, 1)
    cover = np.clip(1.4 - distance / 0.05, 0, 1) * above * 0.9
    cover[np.isin(part.source, ears)] = 0.0
    part.paint[:, :3] = srgb_to_linear(np.array(subject.hair_colour)) * 0.7
    part.paint[:, 3] = cover


def _hair(assets, subject, base, skin, to_house, size) -> list[Part]:
    """Hair of the subject's style; paints the scalp of `skin` under it."""
    colour = srgb_to_linear(np.array(subject.hair_colour))
    ears = _ear_vertices(assets)
    if subject.hair in SHELL_STYLES:
        style = SHELL_STYLES[subject.hair]
        out = shell_parts(skin, ears, style, colour, subject.index, min(size, 1024))
        points = out[0].positions[out[0].fade > 0.5]
    else:
        proxy = assets.proxy(assets.proxies("hair")[subject.hair])
        points = to_house(fit_cards(assets, proxy, base, subject.hair_mirrored))
        out = [card_part(proxy, lift_off_skin(points, skin, ears), colour, size // 2)]
        points = opaque_samples(out[0])
    _paint_scalp(skin, points, ears, subject)
    _paint_lips(skin, _lips(assets), subject)
    return out


def _paint_lips(skin: Part, lips: np.ndarray, subject: Subject) -> None:
    """Gives the lips a natural red; `lips` [V'] is their cover on the refined bust."""
    cover = lips[skin.source] * (0.2 + 0.35 * subject.tone)
    red = srgb_to_linear(skin_tone(subject.tone)) * np.array([0.82, 0.48, 0.5])
    chosen = cover > 0
    skin.paint[chosen, :3] = red
    skin.paint[chosen, 3] = cover[chosen]


@lru_cache(maxsize=2)
def _lips(assets: AssetFolder) -> np.ndarray:
    """How much each vertex of the refined bust belongs to the lips, 0..1."""
    moved = np.zeros(len(assets.base_mesh().vertices))
    for lip in ("upperlip", "lowerlip"):
        index, offset = assets.target(f"mouth/mouth-{lip}-volume-incr")
        size = np.linalg.norm(offset, axis=1)
        moved[index] = np.maximum(moved[index], size / size.max())
    return np.clip(4 * (_bust_subdivision(assets)[1] @ moved) - 1.4, 0, 1)


def _skin_texture(assets: AssetFolder, subject: Subject, size: int) -> Texture:
    tone = skin_tone(subject.tone)
    path = assets.skins().get(subject.skin)
    if path is None:
        return solid_texture(tuple(tone))
    image = read_texture(path, size)
    return build_mips(tint_towards(image, srgb_to_linear(tone), _skin_mean(path)))


@lru_cache(maxsize=16)
def _skin_mean(path: Path) -> np.ndarray:
    """Median linear colour of a skin texture."""
    image = read_texture(path, 256)
    return np.median(SRGB_TO_LINEAR[image[..., :3]].reshape(-1, 3), axis=0)


def _clothes(subject: Subject, garment: Proxy, points: np.ndarray, size: int) -> list[Part]:
    chin = HEAD_MIDDLE - HEAD_HEIGHT / 2
    corners = np.maximum(garment.mesh.faces, 0)
    low = chin - (CUT_BELOW_CHIN + 0.3) * HEAD_HEIGHT
    near = (points[corners][..., 1].max(1) > low) & (np.abs(points[corners][..., 0]).min(1) < 1.15)
    if not near.any():
        return []
    refined, matrix, _ = subdivision(garment.mesh.select(near))
    texture = diffuse_texture(garment.material)
    assert texture is not None  # only textured garments are chosen
    image = _dyed(read_texture(texture, size // 2), subject)
    return [part_from_mesh(refined, matrix @ points, "clothes", build_mips(image))]


def _dyed(image: np.ndarray, subject: Subject) -> np.ndarray:
    """The garment's texture in the subject's colours, opaque; grey cloth is tinted."""
    image = shift_hue(image, subject.clothes_hue, subject.clothes_saturation, subject.clothes_value)
    image[..., 3] = 255
    rgb = image[..., :3].astype(np.float32)
    greyness = 1 - np.clip((rgb.max(-1) - rgb.min(-1)) / 40, 0, 1)
    depth = 0.2 if "elegant" in subject.clothes else 0.65  # a suit's shirt stays nearly white
    dye = np.array(colorsys.hsv_to_rgb(subject.clothes_hue, depth * subject.clothes_saturation, 1))
    rgb *= 1 - greyness[..., None] * (1 - dye)
    image[..., :3] = np.round(rgb)
    return image


def _eyes(assets: AssetFolder, subject: Subject, points: np.ndarray, size: int) -> Part:
    image = read_texture(assets.eye_textures()[subject.eyes], size // 2)
    if subject.eyes == "brown":  # the texture is a deep red; brown eyes are not
        image = shift_hue(image, 0.03, 0.75, 1.15)
    refined, matrix, _ = subdivision(assets.proxy(assets.eyes()).mesh)
    mips = build_mips(image)
    return part_from_mesh(refined, matrix @ points, "eyes", mips, blended=True, casts=False)


def _finish_eyes(parts: list[Part]) -> None:
    """Lifts the light in the eye sockets and sets a catch-light on each cornea."""
    toward = np.array([-0.2, 0.24, 1.0])
    toward /= np.linalg.norm(toward)
    for part in parts:
        if part.label != "eyes":
            continue
        part.light = np.maximum(part.light * 1.25, 0.55)
        for side in (part.positions[:, 0] < 0, part.positions[:, 0] >= 0):
            p = part.positions[side]
            direction = p - 0.5 * (p.min(0) + p.max(0))
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            angle = np.arccos(np.clip(direction @ toward, -1, 1))
            glint = np.clip((0.16 - angle) / 0.06, 0, 0.9)
            part.paint[side] = np.concatenate([np.ones((len(p), 3)), glint[:, None]], 1)


def _face_cards(assets, subject, base, to_house) -> list[Part]:
    out = []
    brow = srgb_to_linear(np.array(subject.hair_colour)) * 0.55
    for kind, name, colour in (
        ("eyebrows", subject.eyebrows, np.maximum(brow, 0.006)),
        ("eyelashes", subject.eyelashes, np.array([0.006, 0.005, 0.005])),
    ):
        proxy = assets.proxy(assets.proxies(kind)[name])
        texture = diffuse_texture(proxy.material)
        if texture is None:
            continue
        image = read_texture(texture, 512).copy()
        image[..., :3] = encode(colour)
        if kind == "eyelashes" and (subject.is_man or subject.shape.age < 15):
            image[..., 3] //= 2
        out.append(
            part_from_mesh(
                proxy.mesh,
                to_house(proxy.fit(base)),
                "hair",
                build_mips(image),
                blended=True,
                casts=False,
            )
        )
    return out


def _teeth(assets: AssetFolder, base, to_house, size: int) -> list[Part]:
    found = assets.proxies("teeth")
    if "teeth_base" not in found:
        return []
    proxy = assets.proxy(found["teeth_base"])
    texture = diffuse_texture(proxy.material)
    if texture is None:
        return []
    mips = build_mips(read_texture(texture, size // 4))
    return [part_from_mesh(proxy.mesh, to_house(proxy.fit(base)), "mouth", mips)]
