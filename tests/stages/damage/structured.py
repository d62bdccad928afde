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

# What JSON can say in place of anything else; some of it json.dumps would not.
VALUES = [
    "null", "true", '"x"', '""', "[]", "{}", "-1", "0", "0.5", "1e308", "NaN", "Infinity",
    "-Infinity", "1" + "0" * 400, "1" + "0" * 5000, "[" * 20000, '"../../x"', '"a\\u0000b"',
    '"\\ud800"', '"2024-13-45"', "[[1, 2], [3]]", '{"a": {"b": [1]}}', "100000000000",
    '"' + "y" * 300 + '"',
]  # fmt: skip


def damage_json(path: Path, random: Random) -> str:
    """Replace, remove or add a value anywhere in a JSON file."""
    content = json.loads(path.read_text())
    places = list(_places(content))
    holder, key = random.choice(places)
    kind = random.choice(["replace", "replace", "replace", "remove", "add"])
    if kind == "remove":
        del holder[key]
        path.write_text(json.dumps(content))
        return f"without {key}"
    mark = "@@damage@@"
    if kind == "add" and isinstance(holder, dict):
        key = "unknown"
    holder[key] = mark
    value = random.choice(VALUES)
    path.write_text(json.dumps(content).replace(f'"{mark}"', value))
    return f"{key} = {value[:30]}"


def _places(value: Any):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield value, key
        if isinstance(item, dict | list):
            yield from _places(item)


def damage_yaml(path: Path, random: Random) -> str:
    lines = path.read_text().splitlines()
    at = random.randrange(len(lines))
    key = lines[at].split(":")[0]
    value = random.choice(
        ["2024-13-45", "&a [*a]", "!!python/object/apply:os.system [ls]", ".nan", ".inf", "[1, 2"]
        + ["'x", "1e400", "{a: {b: 1}}", "\0", "-5", "0", "1" + "0" * 400, "~", "[" * 5000, "yes"]
        + ["!!binary x", "? y", "<<: {}", "*nothing", "\ttab", "18446744073709551616"]
    )
    lines[at] = f"{key}: {value}"
    path.write_text("\n".join(lines))
    return f"{key.strip()}: {value[:30]}"


def damage_rows(path: Path, random: Random) -> str:
    """Of a file with one JSON value a line."""
    lines = path.read_text().splitlines() or [""]
    at = random.randrange(len(lines))
    lines[at] = random.choice(["", "{", "[]", "3", '{"step": "x"}', '{"step": NaN}', "{}", "null"])
    path.write_text("\n".join(lines) + "\n")
    return f"line {at}: {lines[at]}"


def damage_tensors(path: Path, random: Random) -> str:
    """Of a safetensors file: names, shapes, kinds of numbers and values."""
    tensors = load_file(path)
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    metadata = header.get("__metadata__")
    name = random.choice(sorted(tensors))
    tensor = tensors.pop(name)
    kinds = {
        "gone": {},
        "renamed": {name + "_": tensor},
        "nan": {name: torch.full_like(tensor, torch.nan) if tensor.is_floating_point() else tensor},
        "inf": {name: torch.full_like(tensor, torch.inf) if tensor.is_floating_point() else tensor},
        "int": {name: tensor.long()},
        "bool": {name: tensor > 0},
        "shape": {name: tensor[..., :1].clone() if tensor.ndim else tensor[None]},
        "flat": {name: tensor.flatten()[None, None]},
        "empty": {name: tensor.flatten()[:0].clone()},
        "extra": {name: tensor, "extra": torch.ones(2)},
    }
    kind = random.choice(sorted(kinds))
    save_file(tensors | kinds[kind], path, metadata)
    return f"{name} {kind}"


def damage_state(path: Path, random: Random) -> str:
    """Of what torch.save wrote: keys, shapes, kinds and values."""
    state = torch.load(path, weights_only=True)
    places = list(_state_places(state))
    if not places:
        path.write_bytes(b"")
        return "empty"
    holder, key = random.choice(places)
    old = holder[key]
    wrong = [None, "x", -1, [], {}, 10**400, torch.ones(2), torch.tensor(torch.nan)]
    if isinstance(old, torch.Tensor) and old.is_floating_point():
        wrong += [torch.full_like(old, torch.nan), old.flatten()[:0].clone(), old.long()] * 3
    holder[key] = random.choice(wrong)
    torch.save(state, path)
    return f"{key} = {str(holder[key])[:30]}"


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


def damage_picture(path: Path, random: Random) -> str:
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
    return kind


def damage_npy(path: Path, random: Random) -> str:
    shape = random.choice([(3, 1, 8, 10**6, 10**6), (3, 8, 4, 4), (2,), (), (3, 1, 0, 4, 4)])
    kind = random.choice(["<f4", "<U4", "|O", "<c8", "<i8", "|V4", "|b1"])
    buffer = io.BytesIO()
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    path.write_bytes(buffer.getvalue() + bytes(random.choice([0, 64, 4096])))
    return f"{kind} {shape}"


def damage_lines(path: Path, random: Random) -> str:
    """Of a text file of numbers, such as OBJ or COLMAP's: another word in place of one."""
    lines = path.read_text().splitlines()
    at = random.randrange(len(lines))
    words = lines[at].split() or ["x"]
    place = random.randrange(len(words))
    words[place] = random.choice(
        ["nan", "inf", "-1", "0", "1e308", "99999999999", "x", "", "../../a.png", "/dev/zero"]
    )
    lines[at] = " ".join(words)
    path.write_text("\n".join(lines) + "\n")
    return f"line {at}: {lines[at][:60]}"


BY_SUFFIX = {
    ".json": damage_json,
    ".yaml": damage_yaml,
    ".jsonl": damage_rows,
    ".safetensors": damage_tensors,
    ".pt": damage_state,
    ".bin": damage_state,
    ".pkl": damage_state,
    ".png": damage_picture,
    ".npy": damage_npy,
    ".obj": damage_lines,
    ".ply": damage_lines,
    ".txt": damage_lines,
}
