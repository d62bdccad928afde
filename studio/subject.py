"""Seeded random subjects: every choice that makes a person, as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import numpy as np

from runtime.errors import UserError
from runtime.seeds import numpy_generator
from studio.assets import AssetFolder, diffuse_texture, read_proxy
from studio.body import ANCESTRIES, Shape

# sRGB skin tones from light to dark; a subject's tone interpolates them.
SKIN_TONES = np.array(
    [
        [0.90, 0.74, 0.65],
        [0.87, 0.69, 0.58],
        [0.83, 0.63, 0.50],
        [0.74, 0.53, 0.40],
        [0.62, 0.42, 0.31],
        [0.49, 0.32, 0.235],
        [0.38, 0.245, 0.185],
    ]
)
TONE_OF_ANCESTRY = {"caucasian": (0.13, 0.08), "asian": (0.28, 0.09), "african": (0.8, 0.1)}

# sRGB hair colours with their share among people of caucasian ancestry.
HAIR_COLOURS = {
    "black": ((0.075, 0.065, 0.06), 0.1),
    "dark brown": ((0.17, 0.11, 0.075), 0.26),
    "brown": ((0.29, 0.185, 0.115), 0.22),
    "light brown": ((0.44, 0.31, 0.19), 0.14),
    "blond": ((0.72, 0.56, 0.36), 0.17),
    "red": ((0.42, 0.2, 0.11), 0.11),
}
GREY = np.array([0.68, 0.67, 0.65])

# Groups of face targets and the standard deviation of their weights.
FACE_SPREAD = {
    "nose": 0.18,
    "mouth": 0.16,
    "eyes": 0.17,
    "ears": 0.22,
    "chin": 0.2,
    "cheek": 0.2,
    "forehead": 0.18,
    "eyebrows": 0.2,
    "neck": 0.12,
    "head": 0.16,
}
OPPOSITES = (
    ("decr", "incr"),
    ("in", "out"),
    ("down", "up"),
    ("backward", "forward"),
    ("concave", "convex"),
    ("compress", "uncompress"),
)
# Targets that move the head off the neck, or fight with the macro targets.
LEFT_OUT = (
    "head-trans",
    "head-angle",
    "head-age",
    "neck-trans",
    "mouth-trans-in",
    "mouth-trans-out",
    "nose-trans-in",
    "nose-trans-out",
    "eye-push",
    "septumangle",
    "neck-scale",
    "mouth-angles",
    "eyebrows-angle",
    "eyebrows-trans-down",
)
HEAD_SHAPES = (
    "diamond",
    "invertedtriangular",
    "oval",
    "rectangular",
    "round",
    "square",
    "triangular",
)


@dataclass
class Subject:
    """One person.

    Args:
        seed, index: what the subject was drawn from.
        shape: body and face.
        skin: skin texture's name; tone: 0 light .. 1 dark.
        hair: hair style's name; hair_mirrored; hair_colour: sRGB; hair_name: its name.
        eyebrows, eyelashes, eyes: names of those.
        clothes: garment's name; clothes_hue: turn of its hue (1 = full circle); clothes_value,
            clothes_saturation: factors.
        beard: "none" or a key of `studio.hair.BEARD_STYLES`; stubble: strength of its shadow.
        freckles, moles: how many; blush, lipstick: strengths, 0..1.
        glasses: "none", "round", "square" or "sun"; glasses_colour: sRGB of the frame.
    """

    seed: int
    index: int
    shape: Shape = field(default_factory=Shape)
    skin: str = ""
    tone: float = 0.3
    hair: str = ""
    hair_mirrored: bool = False
    hair_colour: tuple[float, float, float] = (0.2, 0.15, 0.1)
    hair_name: str = "brown"
    eyebrows: str = ""
    eyelashes: str = ""
    eyes: str = "brown"
    clothes: str = ""
    clothes_hue: float = 0.0
    clothes_saturation: float = 1.0
    clothes_value: float = 1.0
    beard: str = "none"
    stubble: float = 0.0
    freckles: int = 0
    moles: int = 0
    blush: float = 0.0
    lipstick: float = 0.0
    glasses: str = "none"
    glasses_colour: tuple[float, float, float] = (0.1, 0.1, 0.1)

    @property
    def is_man(self) -> bool:
        return self.shape.gender > 0.5

    def attributes(self) -> dict:
        """JSON-ready values of everything chosen, without what they were drawn from."""
        out = rounded(asdict(self))
        del out["seed"], out["index"]
        return out


def rounded(value):
    """JSON-ready copy of nested values: numbers to 4 digits, tuples as lists."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def skin_tone(tone: float) -> np.ndarray:
    """sRGB colour [3] of tone 0..1."""
    place = np.clip(tone, 0, 1) * (len(SKIN_TONES) - 1)
    return np.array(
        [np.interp(place, np.arange(len(SKIN_TONES)), SKIN_TONES[:, k]) for k in range(3)]
    )


def sample_subject(assets: AssetFolder, seed: int, index: int) -> Subject:
    """Draws subject `index` of the set with `seed`; depends on nothing else but the assets."""
    rng = numpy_generator(seed, "subject", index)
    shape = Shape(
        age=_age(rng),
        gender=float(np.clip(0.06 + 0.88 * (index % 2) + 0.05 * rng.standard_normal(), 0, 1)),
        ancestry=_ancestry(rng),
        weight=float(np.clip(0.5 + 0.17 * rng.standard_normal(), 0.1, 0.95)),
        muscle=float(np.clip(0.5 + 0.15 * rng.standard_normal(), 0.1, 0.9)),
    )
    shape.face = _face(assets, shape.age, rng)
    shape.expression = _resting_face(rng)
    subject = Subject(seed, index, shape)
    _choose_skin(assets, subject, rng)
    _choose_hair(assets, subject, rng)
    subject.eyelashes = _pick(rng, sorted(assets.proxies("eyelashes")), "eyelashes")
    subject.eyebrows = _pick(rng, sorted(assets.proxies("eyebrows")), "eyebrows")
    _choose_eyes(assets, subject, rng)
    _choose_clothes(assets, subject, rng)
    _choose_details(subject, numpy_generator(seed, "details", index))
    return subject


def _pick(rng: np.random.Generator, names: list[str], what: str) -> str:
    if not names:
        raise UserError(f"the assets folder has no usable {what}; complete it (data/README.md)")
    return names[int(rng.integers(len(names)))]


def _age(rng: np.random.Generator) -> float:
    group = rng.random()
    if group < 0.1:
        return float(rng.uniform(8, 14))
    if group < 0.8:
        return float(rng.uniform(17, 50))
    return float(rng.uniform(50, 82))


def _ancestry(rng: np.random.Generator) -> dict[str, float]:
    weights = rng.dirichlet([0.35, 0.35, 0.35])
    return dict(zip(ANCESTRIES, map(float, weights), strict=True))


def _face(assets: AssetFolder, age: float, rng: np.random.Generator) -> dict[str, float]:
    out: dict[str, float] = {}
    youth = float(np.interp(age, [8, 18], [0.55, 1.0]))  # children's faces differ less
    for folder, adult_spread in FACE_SPREAD.items():
        spread = adult_spread * youth
        names = assets.target_names(folder)
        known = set(names)
        shared: dict[str, float] = {}
        for name in names:
            if any(part in name for part in LEFT_OUT):
                continue
            for low, high in OPPOSITES:
                if not name.endswith(f"-{low}"):
                    continue
                other = f"{name.removesuffix(low)}{high}"
                if other not in known:
                    continue
                both_sides = name.replace("/l-", "/").replace("/r-", "/")
                if both_sides not in shared:
                    shared[both_sides] = spread * rng.standard_normal()
                value = shared[both_sides]
                if both_sides != name:
                    value += 0.15 * spread * rng.standard_normal()
                value = float(np.clip(value, -0.75, 0.75))
                out[other if value > 0 else name] = abs(value)
    kind = HEAD_SHAPES[int(rng.integers(len(HEAD_SHAPES)))]
    if f"head/head-{kind}" in assets.target_names("head"):
        out[f"head/head-{kind}"] = float(rng.uniform(0, 0.6))
    for name in assets.target_names("asym"):
        if "breast" not in name and "trunk" not in name and name.endswith("-l"):
            value = float(np.clip(0.1 * rng.standard_normal(), -0.25, 0.25))
            out[name if value > 0 else name.removesuffix("l") + "r"] = abs(value)
    return out


def _resting_face(rng: np.random.Generator) -> dict[str, float]:
    """A friendly resting face: the neutral mesh's brows hang and its mouth corners droop."""
    smile = float(rng.uniform(0.25, 0.6))
    lifted = float(rng.uniform(0.15, 0.4))
    inner = float(rng.uniform(0.45, 0.8))
    opened = float(rng.uniform(0.0, 0.2))
    out = {"mouth-corner-puller": smile}
    for side in ("left", "right"):
        out[f"eyebrows-{side}-up"] = lifted
        out[f"eyebrows-{side}-inner-up"] = inner
        out[f"eye-{side}-opened-up"] = opened
    return out


def _choose_skin(assets: AssetFolder, subject: Subject, rng: np.random.Generator) -> None:
    means = sum(w * TONE_OF_ANCESTRY[a][0] for a, w in subject.shape.ancestry.items())
    spread = sum(w * TONE_OF_ANCESTRY[a][1] for a, w in subject.shape.ancestry.items())
    subject.tone = float(np.clip(means + spread * rng.standard_normal(), 0, 1))
    dark = "darkskinned" if subject.tone > 0.6 else "lightskinned"
    gender = "_male" if subject.is_man else "_female"
    age = subject.shape.age
    group = "young" if age < 36 else "middleage" if age < 58 else "old"
    skins = sorted(assets.skins())
    order = {"young": 0, "middleage": 1, "old": 2}

    def distance(name: str) -> float:
        cost = 4.0 * (dark not in name) + 2.0 * (gender not in name)
        return cost + abs(order.get(name.split("_")[0], 1) - order[group])

    if skins:
        best = min(distance(name) for name in skins)
        subject.skin = _pick(rng, [n for n in skins if distance(n) == best], "skins")


def _choose_hair(assets: AssetFolder, subject: Subject, rng: np.random.Generator) -> None:
    usable = []
    for name, path in assets.proxies("hair").items():
        proxy = read_proxy(path)
        fits = ("male" if subject.is_man else "female") in proxy.tags
        if fits and diffuse_texture(proxy.material) is not None:
            usable.append(name)
    if subject.is_man:
        shells = {"buzz": 0.16, "crop": 0.14, "curls": 0.1, "afro": 0.02}
    else:
        shells = {"buzz": 0.02, "crop": 0.04, "curls": 0.1, "afro": 0.04}
    coiled = subject.shape.ancestry.get("african", 0.0)
    shares = [share * (1 + 2.5 * coiled * (name != "crop")) for name, share in shells.items()]
    pick = float(rng.random())
    subject.hair = _pick(rng, sorted(usable), "hair")
    for name, end in zip(shells, np.cumsum(shares), strict=True):
        if pick < end:
            subject.hair = name
            break
    subject.hair_mirrored = bool(rng.random() < 0.5)
    fair = subject.shape.ancestry.get("caucasian", 0.0) ** 2
    if rng.random() < fair:
        names = list(HAIR_COLOURS)
        shares = np.array([HAIR_COLOURS[name][1] for name in names])
        name = names[int(rng.choice(len(names), p=shares / shares.sum()))]
    else:
        name = "black" if rng.random() < 0.75 else "dark brown"
    grey = np.clip((subject.shape.age - 48 + 7 * rng.standard_normal()) / 20, 0, 0.95)
    colour = (1 - grey) * np.array(HAIR_COLOURS[name][0]) + grey * GREY
    colour = np.clip(colour * (1 + 0.12 * rng.standard_normal()), 0.03, 0.9)
    subject.hair_colour = tuple(float(c) for c in colour)
    subject.hair_name = "grey" if grey > 0.55 else name


def _choose_eyes(assets: AssetFolder, subject: Subject, rng: np.random.Generator) -> None:
    names = sorted(assets.eye_textures())
    fair = subject.shape.ancestry.get("caucasian", 0.0) * (1 - subject.tone)
    if rng.random() > 0.75 * fair:
        names = [name for name in names if name in ("brown", "brownlight")] or names
    subject.eyes = _pick(rng, names, "eye textures")


def _choose_clothes(assets: AssetFolder, subject: Subject, rng: np.random.Generator) -> None:
    usable = []
    for name, path in assets.proxies("clothes").items():
        proxy = read_proxy(path)
        fits = ("male" if subject.is_man else "female") in proxy.tags and "hats" not in proxy.tags
        if fits and diffuse_texture(proxy.material) is not None:
            usable.append(name)
    subject.clothes = _pick(rng, sorted(usable), "clothes")
    subject.clothes_hue = float(rng.random())
    subject.clothes_saturation = float(rng.uniform(0.2, 0.85))
    subject.clothes_value = float(rng.uniform(0.8, 1.15))


def _choose_details(subject: Subject, rng: np.random.Generator) -> None:
    """Beard, freckles, make-up, glasses: drawn from a stream of their own."""
    age, man = subject.shape.age, subject.is_man
    beard, bald, freckles, moles, blush, lips, glasses = rng.random(7)
    if man and age >= 18:
        for style, end in (("short", 0.14), ("full", 0.26), ("goatee", 0.33), ("moustache", 0.38)):
            if beard < end:
                subject.beard = style
                break
        if beard < 0.75:
            subject.stubble = float(rng.uniform(0.12, 0.4))
        if bald < 0.1 * np.interp(age, [25, 60], [0.5, 3.0]):
            subject.hair = "bald"
    fair = 1 - subject.tone
    if freckles < 0.3 * fair * (1 + 2.0 * (subject.hair_name == "red")):
        subject.freckles = int(rng.integers(40, 320))
    if moles < 0.4:
        subject.moles = int(rng.integers(1, 6))
    subject.blush = float(0.25 * blush * (0.5 if man else 1.0))
    if not man and age >= 16 and lips < 0.4:
        subject.lipstick = float(rng.uniform(0.1, 0.45))
    if age >= 8 and glasses < np.interp(age, [10, 70], [0.08, 0.35]):
        subject.glasses = ("round", "square", "sun")[int(rng.choice(3, p=[0.4, 0.5, 0.1]))]
        frames = ((0.06, 0.06, 0.06), (0.28, 0.16, 0.08), (0.35, 0.35, 0.38), (0.4, 0.06, 0.08))
        subject.glasses_colour = frames[int(rng.integers(len(frames)))]
