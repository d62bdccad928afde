"""The head that all people share, without hair or clothes: one topology, any shape.

Legend: V vertices of the skin, P points (the skin's and those of the parts in it), R corners
(points doubled at texture seams), F triangles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from runtime.files import read_json
from studio.assets import AssetFolder, Proxy, diffuse_texture
from studio.drawing.scene import triangulate
from studio.drawing.textures import read_texture
from studio.people.body import Shape, joint, shaped_vertices
from studio.people.bust import bust
from studio.people.face import piece_means
from studio.people.placement import placement

PARTS = ("skin", "upper teeth", "lower teeth", "tongue", "right eye", "left eye")
JOINTS = ("neck", "head", "jaw", "r-eye", "l-eye")
NECK_LINE = 0.02
"""Share of the head's rotation above which skin belongs to the head."""
_TEETH = 900  # triangles of each row, at most
_EYE = (14, 20)  # rings and segments of an eyeball
_BALL = 0.82  # an eyeball's radius, of half the height of the assets' eyes, which have a rim
_CENTRE, _HALF = 0, 1


@dataclass
class BareHead:
    """What is the same for everybody.

    Attributes:
        base: base-mesh vertices of the skin, [V].
        units: points of the inner parts, each part in a box of [-1, 1]³, [P - V, 3].
        inner: which of PARTS[1:] they belong to, from 0, [P - V].
        colors: of the inner points, sRGB, [P - V, 3] uint8.
        faces: triangles on corners, [F, 3], counter-clockwise from outside.
        source: the point of each corner, [R].
        uv: of each corner, [R, 2], origin bottom left, as the assets have it; the inner parts' are
            in a square of their own each.
        part: of each triangle, index into PARTS, [F].
        head_share, jaw_share: how far each point follows the head and the jaw, [P], 0..1.
        ears, lips: share of each vertex of the skin, [V], 0..1.
        chin, upper_lip, lower_lip: vertices at the tip of the chin, and in the middle where the
            lips meet.
    """

    base: np.ndarray
    units: np.ndarray
    inner: np.ndarray
    colors: np.ndarray
    faces: np.ndarray
    source: np.ndarray
    uv: np.ndarray
    part: np.ndarray
    head_share: np.ndarray
    jaw_share: np.ndarray
    ears: np.ndarray
    lips: np.ndarray
    chin: int
    upper_lip: int
    lower_lip: int

    def points(self, skin: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """All points [P, 3] of a head with this skin [V, 3] and these inner boxes [5, 2, 3]."""
        inner = boxes[self.inner, _CENTRE] + self.units * boxes[self.inner, _HALF]
        return np.concatenate([skin, inner])


def bare_head(assets: AssetFolder) -> BareHead:
    """Gather the topology: head and neck of the base mesh, teeth, tongue, eyeballs."""
    template = bust(assets)
    mesh = template.coarse
    inside = template.head_share > NECK_LINE
    corners = np.where(mesh.faces < 0, mesh.faces[:, :1], mesh.faces)
    source, uv, faces = triangulate(mesh.select(inside[corners].all(axis=1)))
    base, source = np.unique(source, return_inverse=True)
    pieces = _inner_pieces(assets)
    units, inner, colors, part = [], [], [], [np.zeros(len(faces), dtype=np.int8)]
    all_faces, sources, uvs = [faces], [source], [uv]
    points, count = len(base), len(source)
    for index, (unit, triangles, color, own_uv) in enumerate(pieces):
        units.append(unit)
        inner.append(np.full(len(unit), index))
        colors.append(color)
        all_faces.append(triangles + count)
        sources.append(np.arange(points, points + len(unit)))
        uvs.append(own_uv)
        part.append(np.full(len(triangles), index + 1, dtype=np.int8))
        points, count = points + len(unit), count + len(unit)
    extra = points - len(base)
    inner = np.concatenate(inner)
    jaw = _jaw_share(assets)[base]
    return BareHead(
        base,
        np.concatenate(units),
        inner,
        np.concatenate(colors),
        np.concatenate(all_faces),
        np.concatenate(sources),
        np.concatenate(uvs),
        np.concatenate(part),
        np.concatenate([template.head_share[base], np.ones(extra)]),
        np.concatenate([jaw, np.isin(inner, [1, 2]).astype(float)]),
        _moved(assets, ("l", "r"), "ears/{}-ear-trans-up")[base],
        _moved(assets, ("upper", "lower"), "mouth/mouth-{}lip-volume-incr")[base],
        *(int(np.searchsorted(base, v)) for v in (template.chin, *template.lip_middles)),
    )


def _moved(assets: AssetFolder, which: tuple[str, str], pattern: str) -> np.ndarray:
    """How far targets move each base-mesh vertex, relative to the most moved one."""
    moved = np.zeros(len(assets.base_mesh().vertices))
    for each in which:
        index, offset = assets.target(pattern.format(each))
        size = np.linalg.norm(offset, axis=1)
        moved[index] = np.maximum(moved[index], size / size.max())
    return moved


def person(
    assets: AssetFolder, head: BareHead, shape: Shape, expression: dict[str, float] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One person's head in our world.

    Args:
        expression: expression unit → weight, in place of the resting face's.

    Returns:
        Skin [V, 3], boxes of the inner parts [5, 2, 3] (centre and half size), joints [5, 3].
    """
    resting = shaped_vertices(assets, shape)
    to_house = placement(assets, resting)
    posed = resting
    if expression:
        posed = shaped_vertices(
            assets, replace(shape, expression={**shape.expression, **expression})
        )
    points = to_house(posed)
    boxes = []
    for proxy, rows in _proxy_pieces(assets):
        fitted = proxy.fit(points)[rows]
        low, high = fitted.min(axis=0), fitted.max(axis=0)
        boxes.append([(low + high) / 2, np.maximum((high - low) / 2, 1e-4)])
    for eye in boxes[3:]:
        eye[_HALF] = np.full(3, _BALL * eye[_HALF][1])
    return points[head.base], np.array(boxes), np.stack([joint(assets, points, n) for n in JOINTS])


def _proxy_pieces(assets: AssetFolder) -> list[tuple[Proxy, np.ndarray]]:
    """Proxy and vertices of every inner part, in the order of PARTS[1:]."""
    teeth = assets.proxy(assets.proxies("teeth")["teeth_base"])
    tongue = assets.proxy(assets.proxies("tongue")["tongue01"])
    eyes = assets.proxy(assets.eyes())
    base = assets.base_mesh().vertices
    lip = base[list(bust(assets).lip_middles)][:, 1].mean()
    low = piece_means(teeth.mesh, teeth.fit(base)[:, 1]) < lip
    right = eyes.fit(base)[:, 0] < 0
    return [
        (teeth, np.flatnonzero(~low)),
        (teeth, np.flatnonzero(low)),
        (tongue, np.arange(len(tongue.mesh.vertices))),
        (eyes, np.flatnonzero(right)),
        (eyes, np.flatnonzero(~right)),
    ]


def _inner_pieces(assets: AssetFolder) -> list[tuple[np.ndarray, ...]]:
    """Points in [-1, 1]³, triangles, colours and uv of every inner part."""
    import fast_simplification

    base = assets.base_mesh().vertices
    out = []
    for proxy, rows in _proxy_pieces(assets)[:3]:
        fitted = proxy.fit(base)
        faces = np.concatenate([proxy.mesh.faces[:, [0, 1, 2]], proxy.mesh.faces[:, [0, 2, 3]]])
        faces = faces[(faces >= 0).all(axis=1) & np.isin(faces, rows).all(axis=1)]
        used, faces = np.unique(faces, return_inverse=True)
        faces = faces.reshape(-1, 3)
        points = fitted[used]
        colors = _vertex_colors(proxy)[used]
        if len(faces) > _TEETH:
            small, faces = fast_simplification.simplify(
                points.astype(np.float32), faces.astype(np.int32), target_count=_TEETH
            )
            colors = colors[cKDTree(points).query(small)[1]]
            points = small.astype(np.float64)
        low, high = points.min(axis=0), points.max(axis=0)
        unit = 2 * (points - low) / (high - low) - 1
        # Unrolled around the arch's back: left to right along it, low to high.
        angle = np.arctan2(unit[:, 0], unit[:, 2] + 1.05) / np.pi + 0.5
        uv = np.stack([angle, (unit[:, 1] + 1) / 2], axis=1)
        out.append((unit, faces.astype(np.int64), colors, uv))
    ball = _eyeball()
    return [*out, ball, ball]


def _vertex_colors(proxy: Proxy) -> np.ndarray:
    """Colour of every vertex of a proxy, sRGB uint8 [n, 3], from its texture."""
    texture = diffuse_texture(proxy.material)
    if texture is None:
        return np.full((len(proxy.mesh.vertices), 3), 200, dtype=np.uint8)
    image = read_texture(texture, 1024)[..., :3]
    uv = np.zeros((len(proxy.mesh.vertices), 2))
    valid = proxy.mesh.faces >= 0
    uv[proxy.mesh.faces[valid]] = proxy.mesh.uv[proxy.mesh.face_uv[valid]]
    height, width = image.shape[:2]
    row = np.clip((1 - uv[:, 1]) * height, 0, height - 1).astype(int)
    column = np.clip(uv[:, 0] * width, 0, width - 1).astype(int)
    return np.asarray(image[row, column], dtype=np.uint8)


def _eyeball() -> tuple[np.ndarray, ...]:
    """A ball whose pole looks along +z; its uv are the picture from the front."""
    rings, segments = _EYE
    # Rings lie closer together at the front, where the iris is.
    polar = np.pi * np.linspace(0, 1, rings + 1) ** 1.3
    turn = 2 * np.pi * np.arange(segments) / segments
    middle = np.stack(
        [
            np.sin(polar[1:-1, None]) * np.cos(turn),
            np.sin(polar[1:-1, None]) * np.sin(turn),
            np.cos(polar[1:-1, None]) * np.ones_like(turn),
        ],
        axis=-1,
    ).reshape(-1, 3)
    points = np.concatenate([[[0.0, 0, 1]], middle, [[0.0, 0, -1]]])
    last = len(points) - 1
    k, n = np.arange(segments), (np.arange(segments) + 1) % segments
    faces = [np.stack([np.zeros_like(k), 1 + k, 1 + n], axis=1)]
    for ring in range(rings - 2):
        a, b = 1 + ring * segments, 1 + (ring + 1) * segments
        faces += [np.stack([a + k, b + k, b + n], axis=1), np.stack([a + k, b + n, a + n], axis=1)]
    tail = 1 + (rings - 2) * segments
    faces.append(np.stack([tail + k, np.full_like(k, last), tail + n], axis=1))
    # Equal angles from the pole are equally far from the square's middle.
    angle = np.arccos(np.clip(points[:, 2], -1, 1)) / np.pi
    across = np.linalg.norm(points[:, :2], axis=1, keepdims=True)
    way = points[:, :2] / np.maximum(across, 1e-9)
    uv = 0.5 + 0.5 * way * angle[:, None]
    white = np.full((len(points), 3), 225, dtype=np.uint8)
    return points, np.concatenate(faces), white, uv


def _jaw_share(assets: AssetFolder) -> np.ndarray:
    """How far each base-mesh vertex follows the jaw, [19158]."""
    folder = assets.data / "rigs"
    bones = read_json(folder / "default.mhskel")["bones"]
    weights = read_json(folder / "default_weights.mhw")["weights"]
    out = np.zeros(len(assets.base_mesh().vertices))
    for name, rows in weights.items():
        bone: str | None = name
        while bone is not None and bone != "jaw":
            bone = bones[bone]["parent"]
        if bone == "jaw" and rows:
            table = np.array(rows)
            np.add.at(out, table[:, 0].astype(np.int64), table[:, 1])
    return np.clip(out, 0, 1)
