"""Damage that keeps a file readable: other values, kinds, names and shapes in it."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import load_file, save_file

from tests.stages.damage.raw import Damage

# What JSON can say in place of anything else; some of it json.dumps would not.
NO_VALUES = ["NaN", "Infinity", "-Infinity", "1" + "0" * 400, "1" + "0" * 5000, "[" * 20000]
VALUES = [
    *NO_VALUES, "null", "true", '"x"', '""', "[]", "{}", "-1", "0", "0.5", "1e308", '"../../x"',
    '"a\\u0000b"', '"\\ud800"', '"2024-13-45"', "[[1, 2], [3]]", '{"a": {"b": [1]}}',
    "100000000000", '"' + "y" * 300 + '"',
]  # fmt: skip


def damage_json(path: Path, random: Random) -> Damage:
    """Replace, remove or add a value anywhere in a JSON file."""
    text, done = damage_json_text(path.read_text(), random)
    path.write_text(text)
    return done


def damage_json_text(text: str, random: Random) -> tuple[str, Damage]:
    content = json.loads(text)
    holder, key = random.choice(list(_places(content)))
    kind = random.choice(["replace", "replace", "replace", "remove", "add"])
    if kind == "remove":
        del holder[key]
        return json.dumps(content), Damage(f"without {key}")
    mark = "@@damage@@"
    if kind == "add" and isinstance(holder, dict):
        key = "unknown"
    holder[key] = mark
    value = random.choice(VALUES)
    text = json.dumps(content).replace(f'"{mark}"', value)
    return text, Damage(f"{key} = {value[:30]}", value in NO_VALUES and key != "unknown")


def _places(value: Any):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield value, key
        if isinstance(item, dict | list):
            yield from _places(item)


NO_SETTINGS = [".nan", ".inf", "1e400", "1" + "0" * 400, "!!python/object/apply:os.system [ls]"]
SETTINGS = [
    *NO_SETTINGS, "2024-13-45", "&a [*a]", "[1, 2", "'x", "{a: {b: 1}}", "\0", "-5", "0", "~",
    "[" * 5000, "yes", "!!binary x", "? y", "<<: {}", "*nothing", "\ttab", "18446744073709551616",
]  # fmt: skip


def damage_yaml(path: Path, random: Random) -> Damage:
    lines = path.read_text().splitlines()
    at = random.randrange(len(lines))
    key = lines[at].split(":")[0]
    value = random.choice(SETTINGS)
    lines[at] = f"{key}: {value}"
    path.write_text("\n".join(lines))
    return Damage(f"{key.strip()}: {value[:30]}", value in NO_SETTINGS)


def damage_rows(path: Path, random: Random) -> Damage:
    """Of a file with one JSON value a line."""
    lines = path.read_text().splitlines() or [""]
    at = random.randrange(len(lines))
    lines[at] = random.choice(["", "{", "[]", "3", '{"step": "x"}', '{"step": NaN}', "{}", "null"])
    path.write_text("\n".join(lines) + "\n")
    return Damage(f"line {at}: {lines[at]}")


def damage_tensors(path: Path, random: Random) -> Damage:
    """Of a safetensors file: names, shapes, kinds of numbers and values."""
    tensors = load_file(path)
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    metadata = header.get("__metadata__")
    name = random.choice(sorted(tensors))
    tensor = tensors.pop(name)
    floating = tensor.is_floating_point()
    kinds = {
        "gone": {},
        "renamed": {name + "_": tensor},
        "nan": {name: torch.full_like(tensor, torch.nan) if floating else tensor},
        "inf": {name: torch.full_like(tensor, torch.inf) if floating else tensor},
        "int": {name: tensor.long()},
        "bool": {name: tensor > 0},
        "shape": {name: tensor[..., :1].clone() if tensor.ndim else tensor[None]},
        "flat": {name: tensor.flatten()[None, None]},
        "empty": {name: tensor.flatten()[:0].clone()},
        "extra": {name: tensor, "extra": torch.ones(2)},
    }
    kind = random.choice(sorted(kinds))
    save_file(tensors | kinds[kind], path, metadata)
    new = kinds[kind].get(name)
    same = new is not None and new.shape == tensor.shape and new.dtype == tensor.dtype
    same = same and kind not in ("nan", "inf")
    return Damage(f"{name} {kind}", not same and (floating or kind not in ("nan", "inf")))


def damage_state(path: Path, random: Random) -> Damage:
    """Of what torch.save wrote: keys, shapes, kinds and values."""
    state = torch.load(path, weights_only=True)
    places = list(_state_places(state))
    if not places:
        path.write_bytes(b"")
        return Damage("empty", True)
    holder, key = random.choice(places)
    old = holder[key]
    wrong = [None, "x", -1, [], {}, 10**400, torch.ones(2), torch.tensor(torch.nan)]
    floating = isinstance(old, torch.Tensor) and old.is_floating_point()
    if floating:
        wrong += [torch.full_like(old, torch.nan), old.flatten()[:0].clone(), old.long()] * 3
    new = holder[key] = random.choice(wrong)
    torch.save(state, path)
    fits = isinstance(new, torch.Tensor) and new.shape == old.shape if floating else True
    sure = floating and not (fits and new.dtype == old.dtype and bool(new.isfinite().all()))
    return Damage(f"{key} = {str(new)[:30]}", sure)


def _state_places(value: Any):
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return
    for key, item in items:
        yield value, key
        yield from _state_places(item)


def damage_picture(path: Path, random: Random) -> Damage:
    kind = random.choice(["size", "text", "mode", "tiny", "jpeg", "clear", "deep", "colours"])
    image = Image.open(path)
    image.load()
    if kind == "size":
        content = bytearray(path.read_bytes())
        content[16:24] = struct.pack(
            ">II", *random.choice([(10**5, 10**5), (13000, 13000), (0, 5)])
        )
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        path.write_bytes(content)
    elif kind == "text":
        notes = PngImagePlugin.PngInfo()
        for i in range(80):
            notes.add_text(f"note{i}", "a" * 2**20, zip=True)
        image.save(path, pnginfo=notes)
    elif kind == "mode":
        image.convert(random.choice(["1", "L", "P", "RGB", "LA"])).save(path, format="PNG")
    elif kind == "tiny":
        image.resize((1, 1)).save(path)
    elif kind == "jpeg":
        image.convert("RGB").save(path, format="JPEG")
    elif kind == "deep":
        Image.fromarray(np.zeros((32, 32), np.uint16)).save(path)
    else:
        Image.new("RGBA", image.size, (9, 9, 9, 0 if kind == "clear" else 255)).save(path)
    return Damage(kind, kind == "size")


def damage_npy(path: Path, random: Random) -> Damage:
    shape = random.choice([(3, 1, 8, 10**6, 10**6), (3, 8, 4, 4), (2,), (), (3, 1, 0, 4, 4)])
    kind = random.choice(["<f4", "<U4", "|O", "<c8", "<i8", "|V4", "|b1"])
    buffer = io.BytesIO()
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    size = random.choice([0, 64, 4096])
    path.write_bytes(buffer.getvalue() + bytes(size))
    return Damage(f"{kind} {shape}", kind not in ("<f4", "<i8") or shape != (3, 8, 4, 4))


NO_NUMBERS = ["nan", "inf", "1e308", "x", "../../a.png", "/dev/zero"]


def damage_lines(path: Path, random: Random) -> Damage:
    """Of a text file of numbers, such as OBJ or COLMAP's: another word in place of one."""
    lines = path.read_text().splitlines()
    at = random.randrange(len(lines))
    words = lines[at].split() or ["x"]
    place = random.randrange(len(words))
    words[place] = random.choice([*NO_NUMBERS, "-1", "0", "99999999999", ""])
    lines[at] = " ".join(words)
    path.write_text("\n".join(lines) + "\n")
    sure = words[place] in NO_NUMBERS and place > 0
    return Damage(f"line {at}: {lines[at][:60]}", sure)


def damage_table(path: Path, random: Random) -> Damage:
    """Of a CSV file: another word in one of its cells."""
    rows = [line.split(",") for line in path.read_text().splitlines()]
    row = random.randrange(len(rows))
    place = random.randrange(len(rows[row]))
    rows[row][place] = random.choice([*NO_NUMBERS, "-1", "0", "99999999999", "", '"', "1,2"])
    path.write_text("\n".join(",".join(row) for row in rows) + "\n")
    return Damage(f"cell {row}, {place}: {rows[row][place]}")
