"""Damage of photographs and of formats that pack numbers: COLMAP's binary model, GLB."""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random

from PIL import Image

from tests.stages.damage.raw import Damage
from tests.stages.damage.structured import damage_json_text


def damage_numbers(path: Path, random: Random) -> Damage:
    """Put another number over eight bytes anywhere in a file."""
    content = bytearray(path.read_bytes())
    numbers = {
        "nan": struct.pack("<d", float("nan")),
        "infinite": struct.pack("<d", float("inf")),
        "1e308": struct.pack("<d", 1e308),
        "most": b"\xff" * 8,
        "many": struct.pack("<Q", 2**40),
        "none": bytes(8),
    }
    kind = random.choice(sorted(numbers))
    at = random.randrange(0, max(1, len(content) - 8), 4)
    content[at : at + 8] = numbers[kind]
    path.write_bytes(content)
    return Damage(f"{kind} at byte {at}")


def damage_glb(path: Path, random: Random) -> Damage:
    """Of the JSON part of a binary glTF, or its numbers."""
    if random.random() < 0.3:
        return damage_numbers(path, random)
    content = path.read_bytes()
    length = struct.unpack_from("<I", content, 12)[0]
    text, done = damage_json_text(content[20 : 20 + length].decode(), random)
    packed = text.encode()
    packed += b" " * (-len(packed) % 4)
    rest = content[20 + length :]
    head = b"glTF" + struct.pack("<II", 2, 20 + len(packed) + len(rest))
    path.write_bytes(head + struct.pack("<II", len(packed), 0x4E4F534A) + packed + rest)
    return Damage(done.told)  # glTF has many parts that a reader of meshes need not look at


def damage_photograph(path: Path, random: Random) -> Damage:
    """Of a JPEG: its notes, colours, size, or another format under its name."""
    image = Image.open(path)
    image.load()
    kind = random.choice(
        ["exif", "turned", "cmyk", "grey", "size", "gif", "tiff", "profile", "thin"]
    )
    if kind in ("exif", "profile"):
        image.save(path, **{"exif" if kind == "exif" else "icc_profile": random.randbytes(400)})
    elif kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = random.choice([0, 3, 6, 8, 99])
        image.save(path, exif=exif)
    elif kind in ("cmyk", "grey"):
        image.convert("CMYK" if kind == "cmyk" else "L").save(path)
    elif kind == "size":
        content = bytearray(path.read_bytes())
        at = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2"))
        content[at + 5 : at + 9] = struct.pack(">HH", 65000, 65000)
        path.write_bytes(content)
    elif kind == "thin":
        image.resize((image.width, 1)).save(path)
    else:
        image.convert("P").save(path, format=kind.upper())
    return Damage(kind, kind == "size")
