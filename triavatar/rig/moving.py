"""All that moves of an avatar: the registered head, and around it what is left of its surface.

Legend: N vertices, F triangles, P points of the head, S vertices of the shell.

The *shell* is hair, hats, beards, clothes and shoulders: the avatar's own surface without what the
head's skin explains. It follows the skin nearest to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from triavatar.export.mesh import Mesh
from triavatar.rig.expression import Expression
from triavatar.rig.head_model import REGIONS
from triavatar.rig.rigged import RiggedHead

COVERED = {"face": 0.035, "ears": 0.03, "neck": 0.012, "scalp": 0.0, "hidden": 0.03}
"""World units from the skin within which the surface is taken for skin, by region."""
SHELL = -1
"""The part of the shell's triangles."""
REACH = 0.08
"""World units over which a face's movements die away in what lies on it, such as beards."""
NEIGHBOURS = 6
LEAST_PIECE = 0.01
"""Share of the shell's triangles below which a piece of it is a crumb."""
SKIRT, SUNK = 0.07, 0.015
"""World units: how far above the skin a shell's cut edge may lie to get a skirt, and how far below
the skin that ends."""
LID_SKIN = 0.035
"""World units above an eye's upper lid where skin is seen."""


def shell_faces(head: RiggedHead, surface: Mesh) -> np.ndarray:
    """Which triangles of the avatar's surface the head's skin does not explain, [F] bool."""
    skin = head.registered.skin
    visible = np.flatnonzero(head.model.region != REGIONS.index("hidden"))
    distance, nearest = cKDTree(skin[visible]).query(surface.vertices)
    region = head.model.region[visible[nearest]]
    limit = np.array([COVERED[name] for name in REGIONS])[region]
    # Vertices of the skin stand apart on the scalp: what lies between them is near all the same.
    covered = np.sqrt(np.maximum(distance**2 - 0.02**2, 0)) < limit
    # Unwrapped surfaces have their vertices doubled along seams; their charts are no crumbs.
    _, place = np.unique(surface.vertices, axis=0, return_inverse=True)
    joined = place.reshape(-1)[surface.faces]
    return without_crumbs(joined, ~covered[surface.faces].all(axis=1))


def without_crumbs(faces: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The triangles kept [F] (bool) without those in small pieces."""
    count = int(faces.max()) + 1 if len(faces) else 0
    pairs = np.concatenate([faces[kept][:, [0, 1]], faces[kept][:, [1, 2]]])
    links = sparse.coo_matrix((np.ones(len(pairs), bool), pairs.T), (count, count))
    _, piece = connected_components(links, directed=False)
    size = np.bincount(piece[faces[kept, 0]], minlength=1)
    out = kept.copy()
    out[kept] = size[piece[faces[kept, 0]]] >= LEAST_PIECE * max(kept.sum(), 1)
    return out


@dataclass(frozen=True)
class MovingAvatar:
    """Head and shell as one set of triangles.

    Attributes:
        head: registered.
        shell: its triangles, world units; may be empty.
    """

    head: RiggedHead
    shell: Mesh

    @classmethod
    def of(cls, head: RiggedHead, surface: Mesh) -> MovingAvatar:
        """Take the shell from the avatar's whole surface."""
        return cls(head, part_of(surface, shell_faces(head, surface)))

    @cached_property
    def faces(self) -> np.ndarray:
        """Triangles on points, then on the shell's vertices, [F, 3] int32."""
        model = self.head.model
        own = model.source[model.faces]
        return np.concatenate([own, self.shell.faces + len(self.head.points)]).astype(np.int32)

    @cached_property
    def part(self) -> np.ndarray:
        """Index into PARTS of each triangle, SHELL for the shell's, [F] int8."""
        model = self.head.model
        return np.concatenate(
            [model.part.astype(np.int8), np.full(len(self.shell.faces), SHELL, np.int8)]
        )

    @cached_property
    def rest(self) -> np.ndarray:
        """Vertices at rest, [N, 3]."""
        return np.concatenate([self.head.points, self.shell.vertices]).astype(np.float64)

    @cached_property
    def share(self) -> np.ndarray:
        """How far each vertex follows the head's turn, [N]."""
        return np.concatenate([self.head.model.head_share, shell_share(self.head, self.shell)])

    def sampled(self, expression: Expression) -> np.ndarray:
        """Where at rest the vertices' colours are taken from, [N, 3]: where they were.

        Closing lids are the exception. What one sees of them at rest is a line, blurred with the
        eye; they take their colours from the skin above.
        """
        out = self.rest
        for side in ("Left", "Right"):
            if weight := expression.weights.get(f"eyeBlink{side}", 0.0):
                rows, offset = self.head.shape(f"eyeBlink{side}")
                out = out.copy() if out is self.rest else out
                falls = np.maximum(-offset[:, 1], 0)
                out[rows, 1] += weight * LID_SKIN * np.minimum(2 * falls / falls.max(), 1)
        return out

    @cached_property
    def _follow(self) -> sparse.csr_matrix:
        return shell_follow(self.head, self.shell)

    def posed(self, expression: Expression) -> np.ndarray:
        """Vertices [N, 3] in an expression."""
        points = self.head.expressed(expression)
        skin = len(self.head.model.mean)
        moved = points[:skin] - self.head.points[:skin]
        shell = self.shell.vertices + self._follow @ moved
        return self.head.turned(np.concatenate([points, shell]), self.share, expression)


def shell_follow(head: RiggedHead, shell: Mesh) -> sparse.csr_matrix:
    """Matrix [S, V] from the skin's movements to the shell's."""
    skin = head.registered.skin
    count = len(shell.vertices)
    if not count:
        return sparse.csr_matrix((0, len(skin)))
    distance, nearest = cKDTree(skin).query(shell.vertices, k=NEIGHBOURS)
    weight = 1 / (distance + 1e-3) ** 2
    weight /= weight.sum(axis=1, keepdims=True)
    weight *= np.exp(-((distance[:, :1] / REACH) ** 2))
    rows = np.repeat(np.arange(count), NEIGHBOURS)
    return sparse.csr_matrix((weight.ravel(), (rows, nearest.ravel())), (count, len(skin)))


def shell_share(head: RiggedHead, shell: Mesh) -> np.ndarray:
    """How far the shell's vertices follow the head's turn, [S]: as the skin below them does."""
    if not len(shell.vertices):
        return np.zeros(0)
    skin = len(head.model.mean)
    distance, nearest = cKDTree(head.registered.skin).query(shell.vertices, k=NEIGHBOURS)
    weight = 1 / (distance + 0.02) ** 2
    share = head.model.head_share[:skin][nearest]
    return (share * weight).sum(axis=1) / weight.sum(axis=1)


def with_skirt(shell: Mesh, skin: np.ndarray) -> Mesh:
    """A part of a closed surface whose cut edges reach down under the skin [V, 3].

    The cut runs a few millimetres above the skin; without a skirt one sees through between them.
    """
    if not len(shell.faces):
        return shell
    _, place = np.unique(shell.vertices, axis=0, return_inverse=True)
    own = np.concatenate([shell.faces[:, [0, 1]], shell.faces[:, [1, 2]], shell.faces[:, [2, 0]]])
    pairs = np.sort(place.reshape(-1)[own], axis=1)
    _, which, count = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    cut = own[count[which.reshape(-1)] == 1]
    rim = np.unique(cut)
    distance, nearest = cKDTree(skin).query(shell.vertices[rim])
    way = skin[nearest] - shell.vertices[rim]
    below = shell.vertices[rim] + way * (1 + SUNK / np.maximum(distance, SUNK))[:, None]
    first, second = np.searchsorted(rim, cut.T)
    near = (distance[first] < SKIRT) & (distance[second] < SKIRT)
    (a, b), start = cut[near].T, len(shell.vertices)
    low_a, low_b = start + first[near], start + second[near]
    more = np.concatenate([np.stack([b, a, low_a], 1), np.stack([b, low_a, low_b], 1)])
    return Mesh(
        np.concatenate([shell.vertices, below.astype(np.float32)]),
        np.concatenate([shell.faces, more]).astype(np.int32),
        None if shell.normals is None else np.concatenate([shell.normals, shell.normals[rim]]),
        None if shell.uv is None else np.concatenate([shell.uv, shell.uv[rim]]),
        shell.texture,
    )


def cavity_of(head: RiggedHead) -> np.ndarray:
    """Vertices of the mouth's inside, [V] bool: hidden skin behind and between the lips."""
    model = head.model
    names = list(model.config.landmarks)
    corners = [model.landmark_points[names.index(f"{s} mouth corner")] for s in ("right", "left")]
    right, left = model.mean[corners]
    near = np.abs(model.mean - 0.5 * (right + left)) < [0.6 * (left - right)[0] + 0.1, 0.16, 0.5]
    return near.all(axis=1) & (model.region == REGIONS.index("hidden"))


def part_of(mesh: Mesh, kept: np.ndarray) -> Mesh:
    """The mesh with some of its triangles [F] (bool) alone."""
    used, faces = np.unique(mesh.faces[kept], return_inverse=True)
    normals = None if mesh.normals is None else mesh.normals[used]
    uv = None if mesh.uv is None else mesh.uv[used]
    faces = faces.reshape(-1, 3).astype(np.int32)
    return Mesh(mesh.vertices[used], faces, normals, uv, mesh.texture)
