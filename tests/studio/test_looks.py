"""Clothes, patterns, hats, hair, brows: what keeps subjects whole."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from studio.clothes.garments import CUTS, level
from studio.clothes.hats import HATS, HatShape, hat_parts
from studio.clothes.patterns import PATTERNS, fabric
from studio.drawing.scene import Part, vertex_normals
from studio.drawing.textures import solid_texture, srgb_to_linear
from studio.hair.cards import (
    clear_face,
    lift_off,
    painted_strands,
    soften_hairline,
    style_cards,
    tint_strands,
)
from studio.hair.combed import COMBED_STYLES, DRAPE_STYLES, combed_parts, drape_parts
from studio.hair.crop import clip_at
from studio.hair.curls import CURL_STYLES, curl_parts
from studio.hair.shells import hairline
from studio.people.body import Shape
from studio.people.face import _calm_brows
from studio.people.palette import CLOTH, cloth_name
from studio.people.subject import Subject
from studio.people.words import labels, sentence

NECK = np.array([0.0, -0.5, -0.1])


def cloth_share(pattern, **settings):
    """Share of a fabric's texels nearer to the second colour, black on white, and the mask."""
    subject = Subject(0, 0, pattern=pattern, clothes_trim=(1.0, 1.0, 1.0), **settings)
    subject.clothes_colour, subject.clothes_colour2 = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
    image = fabric(subject, np.random.default_rng(0), 512, front=True)
    dark = image[..., 1] < 128
    return dark.mean(), dark


def test_stripes_have_their_period_and_prints_are_in_front_only():
    share, dark = cloth_share("striped", pattern_scale=1.0)
    assert (dark == dark[:, :1]).mean() > 0.98 and share == pytest.approx(0.45, abs=0.03)
    starts = np.flatnonzero(~dark[:-1, 0] & dark[1:, 0])
    assert np.allclose(np.diff(starts) * 1.2 / 256, 0.14, atol=0.006)
    share, dark = cloth_share("dotted")
    assert share == pytest.approx(np.pi * 0.24**2, abs=0.03)
    printed = Subject(0, 1, pattern="printed", clothes_colour2=(0.0, 0.0, 0.0))
    pictures = [fabric(printed, np.random.default_rng(0), 256, front) for front in (True, False)]
    assert pictures[0].min() < 20 < 60 < pictures[1].min()
    assert all(np.isfinite(cloth_share(pattern)[0]) for pattern in PATTERNS)


def test_necklines_lie_where_their_names_say():
    places = np.array(
        [[0.0, -0.75, 0.15], [0.0, -0.55, -0.5], [0.0, 0.2, 0.3], [0.6, -0.7, -0.1], [0, -0.45, 0]]
    )
    chest, back, face, arm, throat = range(5)
    inside = {name: level(cut, places, NECK) > 0 for name, cut in CUTS.items()}
    assert all(not where[face] and where[back] for where in inside.values())
    assert inside["crew"][chest] and inside["crew"][arm] and not inside["crew"][throat]
    assert not inside["vneck"][chest] and inside["rollneck"][throat]
    assert not inside["tank"][arm]
    # A V is open at the middle and closed beside it.
    beside = np.array([[0.3, -0.75, 0.15]])
    assert level(CUTS["vneck"], beside, NECK)[0] > 0


@pytest.fixture(scope="module")
def skull(reference):
    """A bumpy head of radius about 0.5 around the studio's middle of the head."""
    points, triangles = reference.blob(2, 24)
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    points = points * [0.42, 0.5, 0.52] + [0.0, 0.2, -0.05]
    normals = vertex_normals(points, triangles)
    uv, texture = np.zeros((len(points), 2)), solid_texture((0.8, 0.6, 0.5))
    return Part(
        "skin", points, triangles, uv, texture, normals=normals, source=np.arange(len(points))
    )


@pytest.mark.parametrize("name", HATS)
def test_hats_enclose_the_skull_and_press_the_hair(skull, name):
    shape = HatShape(HATS[name], skull, np.zeros(0, dtype=int))
    subject = Subject(3, 5, hat=name)
    parts = hat_parts(subject, shape, 64)
    middle = np.array([0.0, 0.2, -0.05])

    def ellipsoid(points):
        return np.linalg.norm((points - middle) / [0.42, 0.5, 0.52], axis=1)

    for part in parts:
        assert np.isfinite(part.positions).all() and np.abs(part.positions).max() < 1.0
        assert np.allclose(np.linalg.norm(part.normals, axis=1), 1, atol=1e-6)
    crown = parts[0].positions
    assert ellipsoid(crown).min() > 0.99
    # Hair that stands off the head ends up under the crown, hair far below stays.
    tall = middle + 1.4 * (skull.positions - middle)
    pressed = shape.flatten(tall)
    if not HATS[name].open_top:
        above = tall[:, 1] > shape.edge(tall)
        size = np.linalg.norm(pressed - middle, axis=1)
        over = np.linalg.norm(crown - middle, axis=1)
        tree = cKDTree((crown - middle) / over[:, None])
        _, near = tree.query((pressed - middle)[above] / size[above, None], k=3)
        assert (size[above] < over[near].max(1) + 1e-3).all()
    below = tall[:, 1] < shape.edge(tall) - 0.17
    assert below.any() and np.allclose(pressed[below], tall[below])


def test_hair_leaves_the_face_free_and_the_sides_alone(reference):
    curtain = reference.plane(0.5, (0.2, 0.1, 0.1, 1.0), half=0.9, label="hair", blended=True)
    n = 60
    x, y = np.meshgrid(np.linspace(-0.9, 0.9, n), np.linspace(-0.9, 0.9, n))
    points = np.stack([x.ravel(), y.ravel(), np.full(n * n, 0.5)], -1)
    i, j = np.meshgrid(np.arange(n - 1), np.arange(n - 1), indexing="ij")
    a = (i * n + j).ravel()
    t = np.concatenate([np.stack([a, a + 1, a + n + 1], -1), np.stack([a, a + n + 1, a + n], -1)])
    hair = Part("hair", points, t, np.zeros((n * n, 2)), curtain.texture, blended=True)
    eyes = [np.array([-0.16, 0.1, 0.4]), np.array([0.16, 0.1, 0.4])]
    cut = clear_face(hair, eyes).positions
    for eye in eyes:
        assert np.hypot(*(cut - eye)[:, :2].T).min() > 0.08
    assert (cut[:, 1] > 0.4).sum() == (points[:, 1] > 0.4).sum()
    behind = Part("hair", points * [1, 1, -1], t, hair.uv, hair.texture, blended=True)
    assert len(clear_face(behind, eyes).positions) == n * n


def test_hair_is_lifted_off_what_it_lies_on():
    surface = np.array(
        [[x, y, 0.0] for x in np.linspace(-1, 1, 21) for y in np.linspace(-1, 1, 21)]
    )
    up = np.tile([0.0, 0.0, 1.0], (len(surface), 1))
    hair = np.array([[0.1, 0.1, -0.03], [0.2, 0.3, 0.2], [0.3, 0.3, -0.4]])
    lifted = lift_off(hair, surface, up)
    assert 0 < lifted[0, 2] < 0.02
    assert np.allclose(lifted[1:], hair[1:])


def test_volume_lifts_the_crown_and_leaves_the_hairline():
    points = np.array([[0.0, 0.7, 0.0], [0.0, 0.45, 0.4], [0.3, -0.3, 0.0]])
    subject = Subject(0, 0, hair_volume=1.0)
    lifted = style_cards(points, subject, np.array([0.4, 0.0, -0.2]))
    assert 0.03 < lifted[0, 1] - points[0, 1] < 0.1
    assert np.allclose(lifted[1:], points[1:])


def test_clipping_follows_any_level_set(reference):
    vertices, triangles = reference.blob()
    part = reference.solid(vertices, triangles)
    radius = np.hypot(vertices[:, 0], vertices[:, 1])
    inside, _ = clip_at(part, radius - 0.35)
    assert np.hypot(*inside.positions[:, :2].T).max() < 0.35 + 0.01
    assert 0 < len(inside.triangles) < len(triangles)


def test_brows_neither_frown_nor_worry():
    x = np.linspace(0.06, 0.3, 9)
    x = np.concatenate([-x, x])
    stern = np.concatenate([np.stack([x, 0.2 + 0.5 * np.abs(x) + d, 0 * x], -1) for d in (0, 0.03)])
    i = np.array([k for k in range(17) if k != 8])
    t = np.concatenate([np.stack([i, i + 1, i + 19], -1), np.stack([i, i + 19, i + 18], -1)])
    texture = solid_texture((0.1, 0.1, 0.1))
    part = Part("hair", stern.copy(), t, np.full((36, 2), 0.5), texture)
    _calm_brows(part, stern)
    rise = np.polyfit(np.abs(part.positions[:18, 0]), part.positions[:18, 1], 1)[0]
    assert rise == pytest.approx(0.1, abs=0.02)
    sad = stern * [1, -1, 1]
    part = Part("hair", sad.copy(), t, np.full((36, 2), 0.5), texture)
    _calm_brows(part, sad)
    rise = np.polyfit(np.abs(part.positions[:18, 0]), part.positions[:18, 1], 1)[0]
    assert rise == pytest.approx(-0.08, abs=0.02)
    friendly = Part("hair", stern * [1, 0, 1] + [0, 0.2, 0], t, part.uv, texture)
    before = friendly.positions.copy()
    _calm_brows(friendly, before)
    assert np.array_equal(friendly.positions, before)


def test_hairline_runs_over_the_forehead_down_the_temples_to_the_nape():
    head = np.array([[0.0, 0.32, 0.47]])  # sets the forehead's depth

    def height(*place, receding=0.0):
        return hairline(np.concatenate([head, [place]]), receding)[1]

    assert height(0, 0.68, 0.0) > 0.1  # crown
    assert height(0, 0.3, 0.47) < 0 and height(0, 0.2, 0.45) < 0  # forehead, brow
    assert height(0.38, 0.25, 0.1) > 0 and height(0.3, 0.1, 0.3) < 0  # temple, cheek
    assert height(0, 0.0, -0.5) > 0 and height(0, -0.4, -0.4) < 0  # nape, neck
    assert height(0.24, 0.47, 0.36, receding=0.1) < height(0.24, 0.47, 0.36)


@pytest.mark.parametrize("name", CURL_STYLES)
def test_curls_spring_from_the_hairy_part_and_stand_clear_of_the_skull(skull, name):
    style = CURL_STYLES[name]
    middle = np.array([0.0, 0.2, -0.05])
    region = np.clip(0.5 + (skull.positions[:, 1] - 0.2) / 0.1, 0, 1)
    rise = np.ones(len(region))
    colour = np.array([0.2, 0.1, 0.05])
    core, coils = curl_parts(skull, region, rise, style, colour, np.random.default_rng(0), 64)
    again = curl_parts(skull, region, rise, style, colour, np.random.default_rng(0), 64)[1]
    assert np.array_equal(coils.positions, again.positions)
    for part in (core, coils):
        assert not part.blended and np.isfinite(part.positions).all()
        assert np.allclose(np.linalg.norm(part.normals, axis=1), 1, atol=1e-6)

    def height(points):  # along the line from the middle of the head
        size = np.linalg.norm((points - middle) / [0.42, 0.5, 0.52], axis=1)
        return (1 - 1 / size) * np.linalg.norm(points - middle, axis=1)

    assert height(coils.positions).min() > -1.5 * style.radius
    assert 0.8 * style.height < height(coils.positions).max() < 1.6 * style.height
    closed = region[np.unique(skull.triangles[(region[skull.triangles] > 0).any(1)])] == 1
    assert height(core.positions)[closed].min() > 0.2 * style.core * style.height
    assert height(core.positions)[~closed].min() < 0  # the edge sinks into the skin
    roots = coils.positions.reshape(-1, 2 * (int(style.turns * style.sides) + 1), 3)[:, :2].mean(1)
    assert len(roots) > 100 and roots[:, 1].min() > 0.1
    distance, _ = cKDTree(roots).query(roots, k=2)
    assert np.percentile(distance[:, 1], 2) > 0.4 * style.spacing


def test_hairlines_are_soft_and_fringes_are_left_alone(reference):
    x, y = np.meshgrid(np.linspace(-0.3, 0.3, 25), np.linspace(0.2, 0.6, 25))
    skin = reference.plane(0.4, (1, 1, 1, 1))
    points = np.stack([x.ravel(), y.ravel(), np.full(x.size, 0.4)], -1)
    skin = Part("skin", points, skin.triangles, np.zeros((x.size, 2)), skin.texture)
    line = points[:, 1] - 0.5  # hair grows above 0.5

    def hair(lowest, off=0.006):
        rows = np.array([[x, y, 0.4 + off] for x in (-0.2, 0, 0.2) for y in (lowest, 0.49, 0.58)])
        part = Part("hair", rows, np.array([[0, 1, 3]]), np.zeros((9, 2)), skin.texture)
        soften_hairline(part, skin, line)
        return part.fade.reshape(3, 3)

    edge = hair(0.45)
    assert (edge[:, 0] < 0.1).all() and (edge[:, 1] > 0.2).all() and (edge[:, 1] < 0.8).all()
    assert np.allclose(edge[:, 2], 1) and np.allclose(hair(0.45, off=0.08), 1)
    assert np.allclose(hair(0.35), 1)


def test_strands_keep_their_pattern_but_not_its_extremes():
    ramp = np.zeros((16, 256, 4), dtype=np.uint8)
    ramp[..., :3] = np.arange(256)[None, :, None]
    ramp[..., 3] = 255
    colour = np.array([0.2, 0.12, 0.08])
    tinted = srgb_to_linear(tint_strands(ramp, colour)[0, :, :3] / 255)
    light = tinted @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(light) >= 0).all() and 1.5 < light[-1] / light[0] < 5.5
    assert np.allclose(tinted[128] / tinted[128, 0], colour / colour[0], rtol=0.05)


def test_painted_strands_run_along_v():
    image = painted_strands(128)[..., 0].astype(float)
    assert np.abs(np.diff(image, axis=1)).mean() > 5 * np.abs(np.diff(image, axis=0)).mean()


def test_words_name_hats_cuts_patterns_and_colours():
    subject = Subject(0, 0, Shape(age=30, gender=0.0), clothes="vneck", pattern="striped")
    subject.clothes_colour, subject.clothes_colour2 = CLOTH["navy"], CLOTH["white"]
    subject.hat, subject.hat_colour = "sunhat", CLOTH["orange"]
    text = sentence(subject)
    assert text.endswith("wearing a navy and white striped V-neck and an orange sun hat.")
    found = labels(subject)
    assert found["hat"] == "orange sun hat" and found["pattern"] == "striped"
    subject.pattern, subject.hat = "printed", "none"
    assert sentence(subject).endswith("wearing a navy V-neck with a white print.")
    assert all(cloth_name(colour) == name for name, colour in CLOTH.items())


@pytest.mark.assets
@pytest.mark.parametrize("garment", ["crew", "tank", "male_casualsuit01"])
def test_dressed_and_hatted_subjects_are_whole(assets, garment):
    pytest.importorskip("numba", reason="the rasteriser needs numba")
    from studio.assets import AssetFolder
    from studio.people.figure import build_parts
    from studio.people.random_subject import sample_subject

    folder = AssetFolder(assets)
    subject = sample_subject(folder, 3, 4)
    subject.clothes, subject.hat, subject.pattern = garment, "beanie", "striped"
    (parts,) = build_parts(folder, subject, texture_size=128)
    assert {"skin", "hair", "eyes", "clothes", "mouth", "accessory"} <= {p.label for p in parts}
    for part in parts:
        assert np.isfinite(part.positions).all() and np.abs(part.positions).max() < 1.0
        assert np.isfinite(part.light).all() and part.fade.max() <= 1 + 1e-9


def test_a_wreath_leaves_the_crown_bare():
    places = np.array([[0.0, 0.32, 0.47], [0.0, 0.66, -0.1], [0.3, 0.3, -0.1], [0.0, 0.1, -0.5]])
    full, bald = hairline(places, 0.1), hairline(places, 0.28)
    assert full[1] > 0.1 and bald[1] < 0  # crown
    assert bald[2] > 0 and bald[3] > 0  # above the ear, nape


@pytest.mark.parametrize("name", DRAPE_STYLES)
def test_parted_hair_lies_outside_the_head_and_as_long_as_asked(skull, name):
    style = DRAPE_STYLES[name]
    cover = (skull.positions, skull.normals)

    def draped(length):
        rng = np.random.default_rng(0)
        return drape_parts(skull, cover, style, length, False, np.full(3, 0.1), rng, 64)

    left, right = draped(1.0)
    assert left.positions[:, 0].mean() < 0 < right.positions[:, 0].mean()
    points = np.concatenate([left.positions, right.positions])
    inside = np.linalg.norm((points - [0.0, 0.2, -0.05]) / [0.42, 0.5, 0.52], axis=1)
    assert inside.min() > 0.99
    face = (np.abs(points[:, 0]) < 0.15) & (points[:, 1] < 0.25) & (points[:, 2] > 0)
    assert not face.any()
    longer = np.concatenate([part.positions for part in draped(1.4)])
    assert points[:, 1].min() - longer[:, 1].min() == pytest.approx(0.4 * style.length, rel=0.3)


@pytest.mark.parametrize("name", COMBED_STYLES)
def test_combed_hair_covers_its_region_and_carries_its_bun(skull, name):
    style = COMBED_STYLES[name]
    up = np.clip(0.5 + 4 * (skull.positions[:, 1] - 0.2), 0, 1)
    rng = np.random.default_rng(0)
    parts = combed_parts(skull, up, np.ones_like(up), style, False, np.full(3, 0.1), rng, 64)
    assert len(parts) == (2 if style.bun else 1)
    sheet = parts[0]
    assert (sheet.positions[:, 1] > 0).all() and sheet.fade.max() == 1
    towards = np.array(style.towards) / np.linalg.norm(style.towards)
    ends = sheet.uv[:, 1].argmin()  # the texture's v is the angle from where strands run to
    aim = sheet.positions - [0.0, 0.2, -0.05]
    assert (aim @ towards / np.linalg.norm(aim, axis=1)).argmax() == ends or style.bun == 0
    if style.bun:
        middle = parts[1].positions.mean(0) - [0.0, 0.2, -0.05]
        assert middle @ towards / np.linalg.norm(middle) > 0.97
