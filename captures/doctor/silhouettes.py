"""Space carving: do cameras and silhouettes of one subject agree?

A point belongs to the visual hull when every view sees it inside its silhouette. With the right
cameras the hull's own silhouettes fill the pictures'; with wrong ones the views carve away what
others need, and pixels stay uncovered. Nothing here depends on the world's scale, centre or axes:
the grid is laid around the point that the views look at. Laurentini, "The visual hull concept for
silhouette-based image understanding", 1994.

Legend: N views, H W picture size, K grid points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from captures.camera_files import StoredCamera

# Of 24 right cameras around a head none carves away more than 0.02 of the hull alone; a wrong one
# carves 0.03 to 0.2, and without it the others' coverage rises by 0.005 to 0.05. Of fewer cameras
# each carves more, so the bound is divided by their number; and of few, leaving a right one out
# fills up to 0.007 (of 6), 0.005 (of 12), 0.003 (of 24) more, a wrong one 0.015, 0.024, 0.008.
_ALONE = 0.75


def _gain(n: int) -> float:
    """What leaving a wrong one of n cameras out adds at least to the others' coverage."""
    return 0.004 + 0.3 / n**2


@dataclass
class Sightings:
    """Small pictures of one subject.

    Attributes:
        images: RGBA uint8, straight alpha, [N, H, W, 4].
        stored: the N cameras as written.
    """

    name: str
    frames: list[int]
    images: np.ndarray
    stored: list[StoredCamera]

    @property
    def masks(self) -> np.ndarray:
        return self.images[..., 3] > 127

    @property
    def transformations(self) -> np.ndarray:
        return np.stack([camera.transformation for camera in self.stored])

    def pick(self, indices: list[int]) -> Sightings:
        """The same subject in some of the views."""
        return Sightings(
            self.name,
            [self.frames[i] for i in indices],
            self.images[indices],
            [self.stored[i] for i in indices],
        )


@dataclass
class Pinholes:
    """N cameras in any world; the axes may be left-handed.

    Attributes:
        axes: columns right, down, forward in the world, [N, 3, 3].
        position: [N, 3].
        focal: in picture widths, [N].
    """

    axes: np.ndarray
    position: np.ndarray
    focal: np.ndarray


@dataclass
class Aim:
    """The point the views look at, that nearest to the rays through the silhouettes' centroids.

    Attributes:
        point: [3].
        depth: of the point in each view, [N]; negative behind the camera.
        miss: median distance between point and rays, in silhouette radii.
        radius: of the subject around the point, in world units.
    """

    point: np.ndarray
    depth: np.ndarray
    miss: float
    radius: float

    @property
    def plausible(self) -> bool:
        return bool((self.depth > 0).mean() >= 0.75 and self.miss < 1 and self.radius > 0)


def aim(cameras: Pinholes, masks: np.ndarray) -> Aim:
    """See :class:`Aim`. Empty masks [N, H, W] are not allowed."""
    n, height, width = masks.shape
    y, x = np.mgrid[0:height, 0:width] + 0.5
    area = masks.sum(axis=(1, 2))
    cx, cy = (masks * x).sum(axis=(1, 2)) / area, (masks * y).sum(axis=(1, 2)) / area
    reach = np.array(
        [np.hypot(x - cx[i], y - cy[i])[masks[i]].max() / width for i in range(n)]
    )  # picture widths
    direction = np.stack(
        [(cx - width / 2) / width / cameras.focal, (cy - height / 2) / width / cameras.focal]
        + [np.ones(n)],
        axis=-1,
    )
    direction = np.einsum("nij,nj->ni", cameras.axes, direction)
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    across = np.eye(3) - direction[:, :, None] * direction[:, None]
    # Parallel rays meet nowhere; the small term keeps the system solvable and the point finite.
    point = np.linalg.solve(
        across.sum(axis=0) + 1e-9 * n * np.eye(3),
        np.einsum("nij,nj->i", across, cameras.position),
    )
    offset = point - cameras.position
    depth = np.einsum("nij,ni->nj", cameras.axes, offset)[:, 2]
    radii = reach * np.abs(depth) / cameras.focal
    distance = np.linalg.norm(np.einsum("nij,nj->ni", across, offset), axis=-1)
    miss = float(np.median(distance / np.maximum(radii, 1e-12)))
    return Aim(point, depth, miss, float(np.percentile(radii, 75)))


@dataclass
class Hull:
    """Grid points seen by N views.

    Attributes:
        points: [K, 3] in world units, ``spacing`` apart.
        pixels: index of the pixel that each view sees each point in, [N, K].
        depth: [N, K].
        outside: whether the view sees the point off its silhouette, [N, K].
        inside: the hull, [K].
    """

    points: np.ndarray
    spacing: float
    grid: int
    pixels: np.ndarray
    depth: np.ndarray
    outside: np.ndarray
    inside: np.ndarray


def carve(cameras: Pinholes, masks: np.ndarray, grid: int, tolerance: int = 0) -> Hull:
    """Carve a cube of grid³ points around what the views look at.

    A point beyond a picture's border counts as what the nearest border pixel shows, so that busts
    cut by the border are not cut in space.

    Args:
        tolerance: so many views may see a point of the hull off their silhouettes.
    """
    target = aim(cameras, masks)
    n, height, width = masks.shape
    half = 1.15 * target.radius
    line = (np.arange(grid, dtype=np.float32) + 0.5) / grid * 2 - 1
    cube = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1).reshape(-1, 3)
    points = (half * cube + target.point).astype(np.float32)
    pixels = np.empty((n, len(points)), np.int32)
    depth = np.empty((n, len(points)), np.float32)
    outside = np.empty((n, len(points)), bool)
    for i in range(n):
        axes = cameras.axes[i].astype(np.float32)
        seen = (points - cameras.position[i].astype(np.float32)) @ axes
        depth[i] = seen[:, 2]
        zoom = np.float32(cameras.focal[i] * width) / np.maximum(depth[i], 1e-6 * half)
        px = np.clip(seen[:, 0] * zoom + width / 2, 0, width - 1).astype(np.int32)
        py = np.clip(seen[:, 1] * zoom + height / 2, 0, height - 1).astype(np.int32)
        pixels[i] = py * width + px
        outside[i] = ~masks[i].reshape(-1)[pixels[i]] | (depth[i] <= 0)
    inside = outside.sum(axis=0) <= tolerance
    return Hull(points, 2 * half / grid, grid, pixels, depth, outside, inside)


def coverage(hull: Hull, masks: np.ndarray) -> np.ndarray:
    """Share of every silhouette that the hull fills, [N] in [0, 1]; one pixel of slack."""
    n, height, width = masks.shape
    out = np.zeros(n)
    for i in range(n):
        hit = np.zeros(height * width, bool)
        hit[hull.pixels[i][hull.inside]] = True
        padded = np.pad(hit.reshape(height, width), 1)
        wide = padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1]
        wide |= padded[1:-1, :-2] | padded[1:-1, 2:]
        out[i] = (wide & masks[i]).sum() / masks[i].sum()
    return out


def colour_spread(hull: Hull, images: np.ndarray) -> float:
    """Photometric disagreement: how much the colours that several views see at one point differ.

    Variance over the views that see a point of the hull's surface, over the variance of all
    colours; 0 agrees, 1 is as good as shuffled. It tells mirrored cameras from right ones where
    silhouettes of a nearly symmetric subject cannot.
    """
    n, height, width = images.shape[:3]
    solid = np.pad(hull.inside.reshape(hull.grid, hull.grid, hull.grid), 1)
    core = np.ones_like(solid)
    for axis in range(3):
        core &= np.roll(solid, 1, axis) & np.roll(solid, -1, axis)
    surface = np.flatnonzero((solid & ~core)[1:-1, 1:-1, 1:-1].reshape(-1))
    if not len(surface):
        return 1.0
    total, squares = np.zeros((len(surface), 3)), np.zeros((len(surface), 3))
    count = np.zeros(len(surface))
    for i in range(n):
        pixel, depth = hull.pixels[i][surface], hull.depth[i][surface]
        nearest = np.full(height * width, np.inf, np.float32)
        np.minimum.at(nearest, pixel, depth)
        padded = np.pad(nearest.reshape(height, width), 1, constant_values=np.inf)
        nearest = np.minimum.reduce(
            [padded[a : a + height, b : b + width] for a in range(3) for b in range(3)]
        ).reshape(-1)
        seen = depth < nearest[pixel] + 2 * hull.spacing
        color = images[i, ..., :3].reshape(-1, 3)[pixel] / 255.0
        total[seen] += color[seen]
        squares[seen] += color[seen] ** 2
        count[seen] += 1
    several = count >= 3
    if not several.any():
        return 1.0
    weight = count[several]
    mean = total[several] / weight[:, None]
    variance = (squares[several] / weight[:, None] - mean**2).sum(axis=-1)
    overall = images[..., :3][images[..., 3] > 127].reshape(-1, 3) / 255.0
    return float(np.average(variance, weights=weight) / max(overall.var(axis=0).sum(), 1e-4))


def outliers(hull: Hull, masks: np.ndarray, most: int) -> list[int]:
    """Views whose cameras fit no other view, worst first.

    Such a view alone carves away what all others keep, and without it the hull fills the others'
    silhouettes better. A right view never does the second.

    Args:
        most: no more than this many.
    """
    misses = hull.outside.sum(axis=0).astype(np.int16)
    left = np.ones(len(hull.outside), bool)
    found: list[int] = []
    before = coverage(_with(hull, misses == 0), masks)
    while len(found) < most:
        kept = max(int((misses == 0).sum()), 1)
        alone = (hull.outside & (misses == 1)).sum(axis=1) * left / kept
        worst = int(alone.argmax())
        if alone[worst] < _ALONE / len(left):
            break
        left[worst] = False
        misses = misses - hull.outside[worst]
        after = coverage(_with(hull, misses == 0), masks)
        if (after - before)[left].mean() < _gain(len(left)):
            break
        found.append(worst)
        before = after
    return found


def _with(hull: Hull, inside: np.ndarray) -> Hull:
    return replace(hull, inside=inside)
