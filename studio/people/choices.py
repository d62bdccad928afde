"""Seeded random subjects: skin, hair, eyes, clothes, hats and details."""

from __future__ import annotations

import numpy as np

from runtime.errors import UserError
from studio.assets import AssetFolder, diffuse_texture, read_proxy
from studio.clothes.garments import CUTS
from studio.clothes.patterns import PATTERNS
from studio.hair.combed import COMBED_STYLES, DRAPE_STYLES
from studio.hair.curls import CURL_STYLES
from studio.hair.shells import SHELL_STYLES
from studio.people.palette import CLOTH, GREY, HAIR_COLOURS, NEUTRAL, QUIET, TONE_OF_ANCESTRY
from studio.people.subject import Subject

# Tags of card styles that strands can be painted for when their texture is missing.
_PAINTABLE = frozenset({"bob"})

# How often hair styles are worn; those that coil are commoner, the others rarer among people of
# african ancestry.
HAIR_OF_WOMEN = {
    "long01": 0.1,
    "ponytail01": 0.08,
    "braid01": 0.06,
    "bob01": 0.06,
    "bob02": 0.06,
    "short03": 0.04,
    "drapedbob": 0.09,
    "drapedsidebob": 0.09,
    "drapedlong": 0.1,
    "drapedsidelong": 0.1,
    "bun": 0.04,
    "lowbun": 0.05,
    "topknot": 0.03,
    "sweptback": 0.01,
    "sweptside": 0.02,
    "curls": 0.05,
    "afro": 0.03,
    "buzz": 0.01,
    "crop": 0.02,
}
HAIR_OF_MEN = {
    "short01": 0.09,
    "short02": 0.1,
    "short04": 0.1,
    "short03": 0.02,
    "buzz": 0.1,
    "crop": 0.1,
    "curls": 0.07,
    "afro": 0.04,
    "sweptback": 0.1,
    "sweptside": 0.11,
    "drapedcurtains": 0.06,
    "drapedlong": 0.03,
    "drapedsidelong": 0.02,
    "long01": 0.02,
    "lowbun": 0.02,
    "topknot": 0.02,
}
_COILED = frozenset({"buzz", "curls", "afro"})


def pick(rng: np.random.Generator, names: list[str], what: str) -> str:
    """One of `names`.

    Raises:
        UserError: there is none.
    """
    if not names:
        raise UserError(f"the assets folder has no usable {what}; complete it (data/README.md)")
    return names[int(rng.integers(len(names)))]


def choose_skin(assets: AssetFolder, subject: Subject, rng: np.random.Generator) -> None:
    means = sum(w * TONE_OF_ANCESTRY[a][0] for a, w in subject.shape.ancestry.items())
    spread = sum(w * TONE_OF_ANCESTRY[a][1] for a, w in subject.shape.ancestry.items())
    subject.tone = float(np.clip(means + 1.5 * spread * rng.standard_normal(), 0, 1))
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
        subject.skin = pick(rng, [n for n in skins if distance(n) == best], "skins")


def choose_hair(assets: AssetFolder, subject: Subject, rng: np.random.Generator) -> None:
    usable = {*SHELL_STYLES, *CURL_STYLES, *DRAPE_STYLES, *COMBED_STYLES}
    for name, path in assets.proxies("hair").items():
        proxy = read_proxy(path)
        if proxy.tags & _PAINTABLE or diffuse_texture(proxy.material) is not None:
            usable.add(name)
    coiled = subject.shape.ancestry.get("african", 0.0)
    shares = {}
    for name, share in (HAIR_OF_MEN if subject.is_man else HAIR_OF_WOMEN).items():
        if name in usable:
            shares[name] = share * (1 + 2.5 * coiled if name in _COILED else 1 - 0.45 * coiled)
    share = np.array(list(shares.values()))
    subject.hair = list(shares)[int(rng.choice(len(shares), p=share / share.sum()))]
    subject.hair_mirrored = bool(rng.random() < 0.5)
    length, wave, volume, receding = rng.random(4)
    subject.hair_length = float(0.7 + 0.75 * length)
    subject.hair_wave = float(max(0.0, 1.7 * wave - 0.7))
    # Lift opens holes where hair is tied.
    tied = subject.hair.startswith(("braid", "ponytail", "drapedcurtains"))
    subject.hair_volume = float((0.2 if tied else 0.9) * volume**1.5)
    if subject.is_man:
        age = subject.shape.age
        subject.receding = float(receding**2 * np.interp(age, [20, 60], [0.05, 0.19]))
        if subject.hair in ("buzz", "crop") and rng.random() < np.interp(age, [28, 60], [0, 0.45]):
            subject.receding = float(0.2 + 0.14 * rng.random())  # a wreath
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
    subject.hair_name = "grey" if grey > 0.4 else name


def choose_eyes(assets: AssetFolder, subject: Subject, rng: np.random.Generator) -> None:
    names = sorted(assets.eye_textures())
    fair = subject.shape.ancestry.get("caucasian", 0.0) * (1 - subject.tone)
    if rng.random() > 0.75 * fair:
        dark = ("brown",) if subject.tone > 0.55 else ("brown", "brownlight")
        names = [name for name in names if name in dark] or names
    subject.eyes = pick(rng, names, "eye textures")


def choose_clothes(assets: AssetFolder, subject: Subject, rng: np.random.Generator) -> None:
    """Half the people wear garments of the assets, half cuts of `studio.clothes.garments`."""
    usable = []
    for name, path in assets.proxies("clothes").items():
        proxy = read_proxy(path)
        fits = "female" not in proxy.tags if subject.is_man else "male" not in proxy.tags
        if fits and "hats" not in proxy.tags:
            usable.append(name)
    subject.clothes = pick(rng, sorted(usable), "clothes")
    if rng.random() < 0.5:
        cuts = dict(zip(CUTS, (0.4, 0.2, 0.1, 0.08, 0.14, 0.08), strict=True))
        if subject.is_man:
            cuts |= {"scoop": 0.0, "boat": 0.0}
        share = np.array(list(cuts.values()))
        subject.clothes = list(cuts)[int(rng.choice(len(cuts), p=share / share.sum()))]
    subject.clothes_hue = float(rng.random())
    subject.clothes_saturation = float(rng.uniform(0.1, 0.55))
    subject.clothes_value = float(rng.uniform(0.7, 1.0))
    if "work" in subject.clothes:  # its texture is a saturated one
        subject.clothes_saturation *= 0.6
    first, second, trim = cloth_colours(rng)
    subject.clothes_colour, subject.clothes_colour2 = first, second
    subject.clothes_trim = (first, first, second, trim)[int(rng.integers(4))]
    shares = np.array([0.34, 0.16, 0.05, 0.08, 0.06, 0.07, 0.04, 0.04, 0.05, 0.07, 0.04])
    subject.pattern = PATTERNS[int(rng.choice(len(PATTERNS), p=shares / shares.sum()))]
    subject.pattern_scale = float(rng.uniform(0.55, 1.3))
    if subject.clothes not in CUTS:
        material = read_proxy(assets.proxies("clothes")[subject.clothes]).material
        if diffuse_texture(material) is not None:
            subject.pattern = "plain"


def cloth_colours(
    rng: np.random.Generator,
) -> tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]:
    """Three sRGB colours that can be worn together: loud ones only beside neutral ones."""
    loud = [name for name in CLOTH if name not in QUIET]
    groups = (NEUTRAL, [name for name in QUIET if name not in NEUTRAL], loud)
    group = groups[int(rng.choice(3, p=[0.42, 0.4, 0.18]))]
    first = group[int(rng.integers(len(group)))]
    # A second colour that can be seen on the first.
    partners = [
        name
        for name in (CLOTH if first in NEUTRAL else NEUTRAL)
        if contrast(CLOTH[first], CLOTH[name]) > 0.2
    ]
    second = partners[int(rng.integers(len(partners)))]
    third = NEUTRAL[int(rng.integers(len(NEUTRAL)))]
    return CLOTH[first], CLOTH[second], CLOTH[third]


def contrast(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    """Root mean square difference of two sRGB colours."""
    return float(np.sqrt(np.mean((np.array(a) - np.array(b)) ** 2)))


def choose_hat(subject: Subject, rng: np.random.Generator) -> None:
    """About one in eight people wears a hat; it hides what hair cannot go under it."""
    wears, style, colour, trim, hair = rng.random(5)
    if wears > 0.125:
        return
    names = ("beanie", "cap", "bucket", "sunhat", "fedora", "headband")
    man = (0.32, 0.36, 0.1, 0.0, 0.16, 0.06)
    woman = (0.28, 0.16, 0.12, 0.18, 0.08, 0.18)
    ends = np.cumsum(man if subject.is_man else woman)
    subject.hat = names[min(int((style > ends).sum()), len(names) - 1)]
    if subject.shape.age < 14 and subject.hat == "fedora":
        subject.hat = "cap"
    quiet = QUIET if subject.hat in ("fedora", "bucket") else (*QUIET, *CLOTH)
    subject.hat_colour = CLOTH[quiet[int(colour * len(quiet))]]
    if subject.hat == "sunhat":
        subject.hat_colour = CLOTH["beige" if colour < 0.5 else "cream"]
    bands = [CLOTH[n] for n in NEUTRAL if contrast(subject.hat_colour, CLOTH[n]) > 0.2]
    subject.hat_trim = bands[int(trim * len(bands))]
    if subject.hair in ("afro", "curls"):
        subject.hair = "buzz" if hair < 0.5 else "crop"
    if subject.hair in ("topknot", "bun"):
        subject.hair = "lowbun"


def choose_details(subject: Subject, rng: np.random.Generator) -> None:
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
