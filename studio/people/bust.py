"""The base mesh, which nobody's shape changes: refined faces, regions of the face, weights."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from runtime.errors import UserError
from runtime.files import read_json
from studio.assets import AssetFolder
from studio.drawing.scene import triangulate
from studio.drawing.subdivide import subdivision
from studio.people.body import joint

# Share of the head's rotation that a bone of the neck takes; bones of the head take all of it.
_NECK_SHARE = {"neck01": 0.25, "neck02": 0.5, "neck03": 0.75}


class Bust:
    """The bust of the base mesh, refined once; V' refined vertices, V base vertices.

    Attributes:
        coarse: its faces on the base mesh.
        refined, matrix, parent: as `studio.drawing.subdivide.subdivision` returns them.
        source, triangles: triangulation of `refined` (see `studio.drawing.scene.triangulate`).
        uv: [len(source), 2] texture coordinates of the triangulation.
        chin: base vertex at the tip of the chin.
        ears: refined vertices of the ears.
        lip_middles: base vertices on the midline where the upper and the lower lip meet.
        lips, cheeks, lids: [V'] share of each refined vertex, 0..1.
        head_share: [V] share of the head's rotation each base vertex follows, 0..1.
    """

    def __init__(self, assets: AssetFolder):
        mesh = assets.base_mesh()
        body = mesh.select(np.isin(np.arange(len(mesh.faces)), mesh.group_faces["body"]))
        middle = body.vertices[np.maximum(body.faces, 0)].mean(1)
        neck = joint(assets, mesh.vertices, "neck")
        # From the chest up, arms to the elbow: whatever the shape, the cut lies inside.
        self.coarse = body.select((middle[:, 1] > neck[1] - 4.5) & (np.abs(middle[:, 0]) < 4.2))
        self.refined, self.matrix, self.parent = subdivision(self.coarse)
        self.source, self.uv, self.triangles = triangulate(self.refined)
        self.chin = self._chin(assets)
        self.ears = np.flatnonzero(self._moved(assets, ("l", "r"), "ears/{}-ear-trans-up") > 0.85)
        lips = self._moved(assets, ("upper", "lower"), "mouth/mouth-{}lip-volume-incr")
        self.lips = np.clip(4 * lips - 1.4, 0, 1)
        self.cheeks = self._moved(assets, ("l", "r"), "cheek/{}-cheek-volume-incr")
        self.head_share = _head_share(assets)
        self.lip_middles = self._find_lip_middles(assets)
        lids = self._moved(assets, ("left", "right"), "expression/units/caucasian/eye-{}-closure")
        self.lids = np.clip(2.5 * lids, 0, 1)

    @staticmethod
    def _find_lip_middles(assets: AssetFolder) -> tuple[int, int]:
        """The base vertices on the midline where the upper and the lower lip meet."""
        mesh = assets.base_mesh()
        index, offset = assets.target("expression/units/caucasian/mouth-open")
        drop = np.zeros(len(mesh.vertices))
        drop[index] = -offset[:, 1]
        body = mesh.groups["body"]
        middle = body[np.abs(mesh.vertices[body, 0]) < 1e-3]
        falls = middle[drop[middle] > 0.8 * drop.max()]
        lower = int(falls[np.argmax(mesh.vertices[falls, 1])])
        near = np.abs(mesh.vertices[middle] - mesh.vertices[lower])[:, 1:].max(1) < 0.1
        stays = middle[near & (drop[middle] < 0.2 * drop.max())]
        return int(stays[np.argmin(mesh.vertices[stays, 1])]), lower

    def _moved(self, assets: AssetFolder, sides: tuple[str, str], pattern: str) -> np.ndarray:
        """How far the named targets move each refined vertex, relative to the most moved one."""
        moved = np.zeros(len(assets.base_mesh().vertices))
        for side in sides:
            index, offset = assets.target(pattern.format(side))
            size = np.linalg.norm(offset, axis=1)
            moved[index] = np.maximum(moved[index], size / size.max())
        return self.matrix @ moved

    def _chin(self, assets: AssetFolder) -> int:
        """The foremost body vertex on the midline between the throat and the lips."""
        mesh = assets.base_mesh()
        body = mesh.groups["body"]
        p = mesh.vertices[body]
        jaw = joint(assets, mesh.vertices, "jaw")
        near = (np.abs(p[:, 0]) < 0.08) & (np.abs(p[:, 1] - jaw[1]) < 0.2)
        return int(body[near][np.argmax(p[near, 2])])


@lru_cache(maxsize=2)
def bust(assets: AssetFolder) -> Bust:
    """The bust of these assets (made once)."""
    return Bust(assets)


def _head_share(assets: AssetFolder) -> np.ndarray:
    folder = assets.data / "rigs"
    bones = read_json(folder / "default.mhskel")
    weights = read_json(folder / "default_weights.mhw")
    out = np.zeros(len(assets.base_mesh().vertices))
    try:
        parents = {name: bone["parent"] for name, bone in bones["bones"].items()}
        for name, rows in weights["weights"].items():
            share = _NECK_SHARE.get(name, float(_descends(name, "head", parents)))
            if share and rows:
                table = np.array(rows)
                np.add.at(out, table[:, 0].astype(np.int64), share * table[:, 1])
    except (KeyError, TypeError, ValueError, IndexError):
        raise UserError(f"rig in {folder} is damaged; fetch the assets again") from None
    return np.clip(out, 0, 1)


def _descends(bone: str | None, ancestor: str, parents: dict[str, str | None]) -> bool:
    while bone is not None:
        if bone == ancestor:
            return True
        bone = parents.get(bone)
    return False
