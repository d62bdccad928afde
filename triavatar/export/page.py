"""An avatar as one page for any browser: it holds all it shows and asks no network."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path

import numpy as np

from captures.cameras import orbit_cameras
from runtime.files import write_text
from triavatar.export.bake import draw
from triavatar.export.glb import encode_texture
from triavatar.export.mesh import Mesh
from triavatar.turntable import encode_jpeg, page

PICTURES = 24
PICTURE_SIZE = 320


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _wide(values: np.ndarray, bits: int) -> np.ndarray:
    """[0, 1] to unsigned integers of 16 bits, [-1, 1] to signed ones of 8."""
    if bits == 16:
        return np.round(np.clip(values, 0, 1) * 65535).astype("<u2")
    return np.round(np.clip(values, -1, 1) * 127).astype("i1")


def pack_mesh(mesh: Mesh) -> dict[str, object]:
    """What the page draws, as JSON: positions and uv of 16 bits, normals of 8 bits a value."""
    assert mesh.normals is not None and mesh.uv is not None and mesh.texture is not None
    low = mesh.vertices.min(axis=0)
    span = np.maximum(mesh.vertices.max(axis=0) - low, 1e-6)
    # A fourth value keeps every vertex aligned to four bytes.
    pad = ((0, 0), (0, 1))
    places = np.pad(_wide((mesh.vertices - low) / span, 16), pad)
    wide = len(mesh.vertices) > 65535
    return {
        "low": low.tolist(),
        "span": span.tolist(),
        "places": _text(places.tobytes()),
        "normals": _text(np.pad(_wide(mesh.normals, 8), pad).tobytes()),
        "uv": _text(_wide(mesh.uv, 16).tobytes()),
        "faces": _text(mesh.faces.astype("<u4" if wide else "<u2").tobytes()),
        "wide": wide,
        "corners": mesh.faces.size,
        "texture": _text(encode_texture(mesh.texture, quality=90)),
    }


def turn(mesh: Mesh) -> list[str]:
    """JPEGs of a full turn on white, for browsers without WebGL2, as text."""
    cameras = orbit_cameras(PICTURES, size=2 * PICTURE_SIZE, distance=4.5)
    pictures = []
    for view in range(len(cameras)):
        color, hit = draw(mesh, cameras, view)
        fine = color + (1 - hit[..., None].astype(np.float32))
        mean = fine.reshape(PICTURE_SIZE, 2, PICTURE_SIZE, 2, 3).mean(axis=(1, 3))
        pictures.append(_text(encode_jpeg((mean * 255 + 0.5).astype(np.uint8), quality=85)))
    return pictures


def write_page(path: Path, mesh: Mesh, title: str) -> None:
    """Write the page.

    Args:
        path: file with suffix ``.html``.
        mesh: in world units, with normals, uv and texture.
        title: shown on it.
    """
    data = pack_mesh(mesh) | {"pictures": turn(mesh)}
    filled = page("avatar.html").replace("__TITLE__", html.escape(title))
    write_text(path, filled.replace("__DATA__", json.dumps(data)))
