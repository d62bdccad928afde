"""Finding and reading the MakeHuman community's CC0 assets in their official layout."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from runtime.errors import UserError
from studio.drawing.obj import PolyMesh, read_obj

ASSETS_VARIABLE = "TRIAVATAR_ASSETS"


@dataclass
class Proxy:
    """A mesh bound to the base mesh (`.mhclo`): hair, clothes, eyes, teeth.

    Args:
        name: file stem.
        mesh: its polygons; `mesh.vertices` are the file's own positions.
        reference: [V, 3] base-mesh vertex indices each vertex hangs on.
        weights: [V, 3] barycentric weights of those.
        offsets: [V, 3] offsets along the world axes, in units of `scale_pairs`.
        scale_pairs: for x, y, z: (base vertex, base vertex, distance in decimetres), or None.
        delete: base-mesh vertices hidden under the proxy.
        material: path of the `.mhmat`, or None.
        tags: lower-case tags.
    """

    name: str
    mesh: PolyMesh
    reference: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    scale_pairs: tuple[tuple[int, int, float] | None, ...]
    delete: np.ndarray
    material: Path | None
    tags: frozenset[str]

    def fit(self, base: np.ndarray) -> np.ndarray:
        """Positions [V, 3] of the proxy on the shaped base mesh `base` [19158, 3]."""
        scale = np.ones(3)
        for axis, pair in enumerate(self.scale_pairs):
            if pair is not None:
                scale[axis] = abs(base[pair[0], axis] - base[pair[1], axis]) / pair[2]
        corners = base[self.reference]
        return (corners * self.weights[..., None]).sum(1) + self.offsets * scale


class AssetFolder:
    """The assets of one root folder.

    Accepts a folder that holds the clones `makehuman/` and `makehuman-assets/` side by side.

    Raises:
        UserError: no folder given, or the base mesh or the asset library is not in it.
    """

    def __init__(self, root: Path | None):
        if root is None:
            value = os.environ.get(ASSETS_VARIABLE)
            if not value:
                raise UserError(
                    "no assets folder: pass --assets FOLDER or set the environment variable "
                    f"{ASSETS_VARIABLE} (data/README.md says where to get the assets)"
                )
            root = Path(value)
        self.root = root
        self.data = root / "makehuman" / "makehuman" / "data"
        self.library = root / "makehuman-assets" / "base"
        for needed in (self.data / "3dobjs" / "base.obj", self.library / "hair"):
            if not needed.exists():
                raise UserError(
                    f"assets folder {root} lacks {needed.relative_to(root)}; it must hold the "
                    "clones makehuman/ and makehuman-assets/ (see data/README.md)"
                )

    def base_mesh(self) -> PolyMesh:
        """The base mesh with its helper and joint groups, in decimetres."""
        return _base_mesh(self.data / "3dobjs" / "base.obj")

    def target(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Target `name`, e.g. "nose/nose-hump-incr" → (indices [k], offsets [k, 3] in dm)."""
        return read_target(self.data / "targets" / f"{name}.target")

    def target_names(self, folder: str) -> list[str]:
        """Names ("folder/stem", sorted) of the targets in `folder` of data/targets."""
        found = sorted((self.data / "targets" / folder).glob("*.target"))
        return [f"{folder}/{path.stem}" for path in found]

    def proxies(self, kind: str) -> dict[str, Path]:
        """Proxy name → `.mhclo` path for a library folder ("hair", "clothes", "eyebrows", …)."""
        found = sorted((self.library / kind).glob("*/*.mhclo"))
        return {path.stem: path for path in found}

    def proxy(self, path: Path) -> Proxy:
        """Read a proxy (cached)."""
        return read_proxy(path)

    def eyes(self) -> Path:
        """The high-poly eyes' `.mhclo`."""
        return self.data / "eyes" / "high-poly" / "high-poly.mhclo"

    def skins(self) -> dict[str, Path]:
        """Skin texture name → path of those present."""
        found = sorted((self.library / "skins" / "textures").glob("*_diffuse*.png"))
        return {path.stem: path for path in found}

    def eye_textures(self) -> dict[str, Path]:
        """Eye colour name → texture path."""
        folders = (self.library / "eyes" / "materials", self.data / "eyes" / "materials")
        found = [path for folder in folders for path in sorted(folder.glob("*_eye.png"))]
        return {path.stem.removesuffix("_eye"): path for path in found}


@lru_cache(maxsize=2)
def _base_mesh(path: Path) -> PolyMesh:
    return read_obj(path)


@lru_cache(maxsize=2048)
def read_target(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a `.target`: lines of vertex index and three offsets in decimetres.

    Raises:
        UserError: missing or damaged file.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"target {path} cannot be read: {error.strerror}") from error
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    try:
        values = np.array(" ".join(lines).split(), dtype=np.float64).reshape(-1, 4)
    except ValueError as error:
        raise UserError(
            f"target {path} is damaged: its lines are not an index and three numbers"
        ) from error
    index = values[:, 0].astype(np.int64)
    if not np.isfinite(values).all() or (index < 0).any():
        raise UserError(f"target {path} is damaged: it has an impossible index or number")
    return index, values[:, 1:]


@lru_cache(maxsize=64)
def read_proxy(path: Path) -> Proxy:
    """Read a `.mhclo` with its mesh.

    Raises:
        UserError: missing or damaged file, or one that does not match its mesh.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"proxy {path} cannot be read: {error.strerror}") from error
    try:
        return _parse_proxy(path, text)
    except (ValueError, IndexError, KeyError):
        raise UserError(f"proxy {path} is damaged; fetch the assets again") from None


def _parse_proxy(path: Path, text: str) -> Proxy:
    keys: dict[str, list[str]] = {}
    rows: list[list[float]] = []
    delete: list[int] = []
    tags = set()
    section = ""
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] in ("verts", "delete_verts", "weights"):
            section = words[0]
        elif words[0].lstrip("-").isdigit() and section == "verts":
            row = [float(word) for word in words]
            rows.append(row if len(row) >= 9 else [row[0], row[0], row[0], 1, 0, 0, 0, 0, 0])
        elif words[0].isdigit() and section == "delete_verts":
            delete.extend(_ranges(words))
        elif words[0] == "tag":
            tags.add(" ".join(words[1:]).lower())
        else:
            keys[words[0]] = words[1:]
    table = np.array([row[:9] for row in rows], dtype=np.float64).reshape(-1, 9)
    mesh = read_obj(path.parent / keys["obj_file"][0])
    if len(mesh.vertices) != len(table):
        raise ValueError(f"{len(table)} bindings for {len(mesh.vertices)} vertices")
    pairs = []
    for key in ("x_scale", "y_scale", "z_scale"):
        words = keys.get(key)
        pairs.append((int(words[0]), int(words[1]), float(words[2])) if words else None)
    material = path.parent / keys["material"][0] if "material" in keys else None
    return Proxy(
        name=path.stem,
        mesh=mesh,
        reference=table[:, :3].astype(np.int64),
        weights=table[:, 3:6],
        offsets=table[:, 6:9],
        scale_pairs=tuple(pairs),
        delete=np.array(sorted(set(delete)), dtype=np.int64),
        material=material,
        tags=frozenset(tags),
    )


def _ranges(words: list[str]) -> list[int]:
    """Expand "3 5 - 7" into [3, 5, 6, 7]."""
    out: list[int] = []
    i = 0
    while i < len(words):
        if words[i] == "-":
            out.extend(range(out[-1] + 1, int(words[i + 1]) + 1))
            i += 2
        else:
            out.append(int(words[i]))
            i += 1
    return out


def diffuse_texture(material: Path | None) -> Path | None:
    """The diffuse texture a `.mhmat` names, or None when it names none or the file is absent."""
    if material is None or not material.exists():
        return None
    for line in material.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "diffuseTexture":
            texture = material.parent / words[1]
            return texture if texture.exists() else None
    return None
