"""Seeded random subjects: the body, the face and everything chosen for them."""

from __future__ import annotations

import numpy as np

from runtime.seeds import numpy_generator
from studio.assets import AssetFolder
from studio.people.body import ANCESTRIES, Shape
from studio.people.choices import (
    choose_clothes,
    choose_details,
    choose_eyes,
    choose_hair,
    choose_hat,
    choose_skin,
    pick,
)
from studio.people.subject import Subject

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
# How much more children's and women's faces lean towards the "incr", "up", "out" side.
WHEN_YOUNG = {
    "eyes/eye-scale-decr": 0.3,
    "eyes/eye-height2-decr": 0.1,
    "nose/nose-scale-vert-decr": -0.35,
    "nose/nose-hump-decr": -0.3,
    "nose/nose-volume-decr": -0.25,
    "nose/nose-base-down": 0.2,
    "chin/chin-height-decr": -0.4,
    "chin/chin-width-decr": -0.3,
    "chin/chin-prominent-decr": -0.25,
    "chin/chin-bones-decr": -0.4,
    "cheek/cheek-volume-decr": 0.45,
    "cheek/cheek-bones-decr": -0.3,
    "forehead/forehead-nubian-decr": 0.3,
    "mouth/mouth-scale-horiz-decr": -0.25,
}
WHEN_FEMALE = {
    "chin/chin-width-decr": -0.25,
    "chin/chin-bones-decr": -0.3,
    "chin/chin-height-decr": -0.15,
    "eyes/eye-scale-decr": 0.12,
    "nose/nose-scale-horiz-decr": -0.15,
    "mouth/mouth-lowerlip-volume-decr": 0.15,
    "mouth/mouth-upperlip-volume-decr": 0.15,
}
# Brows of the assets by their look: mere lines, neat narrow ones, bushy ones.
PENCILLED_BROWS = ("eyebrow003", "eyebrow006")
PLUCKED_BROWS = ("eyebrow002", "eyebrow005", "eyebrow007", "eyebrow011")
BUSHY_BROWS = ("eyebrow009", "eyebrow012")
HEAD_SHAPES = (
    "diamond",
    "invertedtriangular",
    "oval",
    "rectangular",
    "round",
    "square",
    "triangular",
)


def sample_subject(assets: AssetFolder, seed: int, index: int) -> Subject:
    """Draw subject `index` of the set with `seed`; it depends on nothing else but the assets."""
    rng = numpy_generator(seed, "subject", index)
    shape = Shape(
        age=_age(rng),
        gender=float(np.clip(0.06 + 0.88 * (index % 2) + 0.05 * rng.standard_normal(), 0, 1)),
        ancestry=_ancestry(rng),
        weight=float(np.clip(0.5 + 0.22 * rng.standard_normal(), 0.08, 1)),
        muscle=float(np.clip(0.5 + 0.15 * rng.standard_normal(), 0.1, 0.9)),
    )
    shape.face = _face(assets, shape, rng)
    shape.expression = _resting_face(rng)
    subject = Subject(seed, index, shape)
    choose_skin(assets, subject, rng)
    choose_hair(assets, subject, rng)
    subject.eyelashes = pick(rng, sorted(assets.proxies("eyelashes")), "eyelashes")
    subject.eyebrows = pick(rng, _brows(assets, subject), "eyebrows")
    choose_eyes(assets, subject, rng)
    choose_clothes(assets, subject, numpy_generator(seed, "clothes", index))
    choose_details(subject, numpy_generator(seed, "details", index))
    choose_hat(subject, numpy_generator(seed, "hat", index))
    return subject


def _brows(assets: AssetFolder, subject: Subject) -> list[str]:
    """Names of the brows that suit the subject."""
    names = sorted(assets.proxies("eyebrows"))
    unwanted = PENCILLED_BROWS
    if subject.is_man or subject.shape.age < 16:
        unwanted = unwanted + PLUCKED_BROWS
    if not subject.is_man or subject.shape.age < 16:
        unwanted = unwanted + BUSHY_BROWS
    return [name for name in names if name not in unwanted] or names


def _age(rng: np.random.Generator) -> float:
    group = rng.random()
    if group < 0.11:
        return float(rng.uniform(5, 13))
    if group < 0.18:
        return float(rng.uniform(13, 18))
    if group < 0.68:
        return float(rng.uniform(18, 50))
    return float(rng.uniform(50, 85))


def _ancestry(rng: np.random.Generator) -> dict[str, float]:
    weights = rng.dirichlet([0.5, 0.45, 0.5])
    return dict(zip(ANCESTRIES, map(float, weights), strict=True))


def _face(assets: AssetFolder, shape: Shape, rng: np.random.Generator) -> dict[str, float]:
    out: dict[str, float] = {}
    youth = float(np.interp(shape.age, [6, 18], [0.45, 1.0]))  # children's faces differ less
    child = float(np.interp(shape.age, [9, 16], [1.0, 0.0]))
    woman = float(np.clip(1 - 2 * shape.gender, 0, 1)) * (1 - child)
    leaning = {  # the mean is moved; keyed by the target that a positive value opposes
        name: child * WHEN_YOUNG.get(name, 0.0) + woman * WHEN_FEMALE.get(name, 0.0)
        for name in {**WHEN_YOUNG, **WHEN_FEMALE}
    }
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
                value += leaning.get(both_sides, 0.0)
                value = float(np.clip(value, -0.75, 0.75))
                out[other if value > 0 else name] = abs(value)
    kind = HEAD_SHAPES[int(rng.integers(len(HEAD_SHAPES)))]
    if f"head/head-{kind}" in assets.target_names("head"):
        most = 0.6 if shape.gender > 0.5 or kind not in ("square", "rectangular") else 0.2
        out[f"head/head-{kind}"] = float(rng.uniform(0, most))
    if child and "head/head-age-decr" in assets.target_names("head"):
        out["head/head-age-decr"] = 0.6 * child
    for name in assets.target_names("asym"):
        if "breast" not in name and "trunk" not in name and name.endswith("-l"):
            value = float(np.clip(0.1 * rng.standard_normal(), -0.25, 0.25))
            out[name if value > 0 else name.removesuffix("l") + "r"] = abs(value)
    return out


def _resting_face(rng: np.random.Generator) -> dict[str, float]:
    """A friendly resting face: the neutral mesh's brows hang and its mouth corners droop."""
    smile = float(rng.uniform(0.25, 0.6))
    lifted = float(rng.uniform(0.15, 0.4))
    inner = float(rng.uniform(0.0, 0.2))
    opened = float(rng.uniform(0.0, 0.2))
    out = {"mouth-corner-puller": smile}
    for side in ("left", "right"):
        out[f"eyebrows-{side}-up"] = lifted
        out[f"eyebrows-{side}-inner-up"] = inner
        out[f"eye-{side}-opened-up"] = opened
    return out
