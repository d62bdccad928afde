"""A subject in words: labels for conditioning and statistics, and one sentence."""

from __future__ import annotations

from studio.looks.pose import Pose
from studio.people.palette import cloth_name
from studio.people.subject import Subject

_HAIR = {
    "buzz": "buzz-cut",
    "crop": "cropped",
    "curls": "curly",
    "afro": "afro",
    "short": "short",
    "long": "long",
    "bob": "bobbed",
    "ponytail": "ponytailed",
    "braid": "braided",
    "drapedbob": "centre-parted bobbed",
    "drapedsidebob": "side-parted bobbed",
    "drapedlong": "centre-parted long",
    "drapedsidelong": "side-parted long",
    "drapedcurtains": "curtained",
    "sweptback": "swept-back",
    "sweptside": "side-swept",
    "topknot": "top-knotted",
    "bun": "tied-up",
    "lowbun": "low-bunned",
}
_CUTS = {
    "crew": "T-shirt",
    "vneck": "V-neck",
    "scoop": "scoop-neck top",
    "tank": "tank top",
    "rollneck": "roll-neck",
    "boat": "boat-neck top",
}
_MOTIFS = {"printed": "print", "logo": "emblem"}
# Parts of the names of the assets' garments.
_GARMENTS = {
    "female_elegant": "striped blouse",
    "elegant": "suit",
    "sport": "sportswear",
    "female_casualsuit01": "sportswear",
    "work": "overalls",
    "male_casualsuit05": "hooded jacket",
    "male_casualsuit01": "polo shirt",
}
_HATS = {"bucket": "bucket hat", "sunhat": "sun hat"}
_EYES = {
    "brownlight": "light brown",
    "deepblue": "deep blue",
    "lightblue": "light blue",
    "bluegreen": "blue-green",
    "ice": "pale grey",
}


def labels(subject: Subject, pose: Pose | None = None) -> dict[str, str]:
    """Readable attributes: age group, gender, ancestry, skin, hair, eyes, beard, …"""
    shape = subject.shape
    age = shape.age
    group = (
        "child"
        if age < 13
        else "teenager"
        if age < 20
        else "young adult"
        if age < 36
        else "middle-aged"
        if age < 58
        else "old"
    )
    major = [name for name, w in shape.ancestry.items() if w > 0.3]
    tones = ("very light", "light", "tan", "brown", "dark")
    return {
        "age": group,
        "gender": "male" if subject.is_man else "female",
        "ancestry": " and ".join(sorted(major)) or "mixed",
        "skin": tones[min(int(subject.tone * 5), 4)],
        "build": "heavy" if shape.weight > 0.68 else "slim" if shape.weight < 0.33 else "average",
        "hair": hair_words(subject),
        "eyes": _EYES.get(subject.eyes, subject.eyes),
        "beard": subject.beard,
        "glasses": {"sun": "sunglasses", "none": "none"}.get(subject.glasses, subject.glasses),
        "clothes": clothes_words(subject),
        "pattern": subject.pattern,
        "hat": hat_words(subject),
        "expression": pose.name if pose else "resting",
    }


def hair_words(subject: Subject) -> str:
    """E.g. "long red", "bald"."""
    if subject.hair == "bald":
        return "bald"
    if subject.receding > 0.2:
        return f"balding {subject.hair_name}"
    style = _HAIR.get(subject.hair.rstrip("0123456789").lower(), subject.hair)
    if style.endswith(("long", "bobbed", "ponytailed")) and subject.hair_wave > 0.35:
        style = f"{style} wavy"
    return f"{style} {subject.hair_name}"


def clothes_words(subject: Subject) -> str:
    """E.g. "navy and white striped V-neck", "suit"."""
    name = subject.clothes
    if name in _CUTS:
        first, second = cloth_name(subject.clothes_colour), cloth_name(subject.clothes_colour2)
        if subject.pattern == "plain":
            return f"{first} {_CUTS[name]}"
        if subject.pattern in ("printed", "logo"):
            return f"{first} {_CUTS[name]} with a {second} {_MOTIFS[subject.pattern]}"
        return f"{first} and {second} {subject.pattern} {_CUTS[name]}"
    for key, word in _GARMENTS.items():
        if key in name:
            return word
    return "casual clothes"


def hat_words(subject: Subject) -> str:
    """E.g. "red cap", "none"."""
    if subject.hat == "none":
        return "none"
    return f"{cloth_name(subject.hat_colour)} {_HATS.get(subject.hat, subject.hat)}"


def sentence(subject: Subject, pose: Pose | None = None) -> str:
    """One sentence about the subject, fit for text conditioning."""
    words = labels(subject, pose)
    man = subject.is_man
    nouns = {
        "child": ("boy", "girl"),
        "teenager": ("teenage boy", "teenage girl"),
        "young adult": ("young man", "young woman"),
        "middle-aged": ("middle-aged man", "middle-aged woman"),
        "old": ("old man", "old woman"),
    }
    noun = nouns[words["age"]][0 if man else 1]
    hair = "a bald head" if words["hair"] == "bald" else f"{words['hair']} hair"
    text = f"{_article(noun)} {noun} with {words['skin']} skin, {hair} and {words['eyes']} eyes"
    if words["beard"] != "none":
        beard = words["beard"]
        text += f", a {beard}" if beard in ("goatee", "moustache") else f", a {beard} beard"
    if words["glasses"] != "none":
        text += (
            ", sunglasses" if words["glasses"] == "sunglasses" else f", {words['glasses']} glasses"
        )
    worn = [_a(words["clothes"])]
    if words["hat"] != "none":
        worn.append(_a(words["hat"]))
    text += f", wearing {' and '.join(worn)}"
    if words["expression"] != "resting":
        text += f"; expression: {words['expression']}"
    return text + "."


def _article(noun: str) -> str:
    return "An" if noun[0] in "aeiou" else "A"


def _a(thing: str) -> str:
    """With its article, unless it is a plural."""
    if thing.endswith(("clothes", "sportswear", "overalls")):
        return thing
    return f"{_article(thing).lower()} {thing}"
