"""The 52 ARKit blend shapes of the shared head, as offsets of its points.

Legend: P points of :class:`studio.people.bare_head.BareHead`, V of its skin.

Names and meaning are those of ARKit's ``ARFaceAnchor.BlendShapeLocation``; left and right are the
subject's. Shapes that an expression unit makes for both sides are shared out between them; those
without a unit (jaw and mouth sideways, puffed cheeks, tongue, eye looks) follow the jaw's weights,
the cheeks' targets and the eyeballs' centres.
"""

from __future__ import annotations

import numpy as np

from studio.assets import AssetFolder
from studio.looks.pose import rotation_matrix
from studio.people.bare_head import PARTS, BareHead
from studio.people.body import ANCESTRIES

# Blend shape → {unit: weight}; "L" or "R" behind a unit keeps its half alone.
_UNITS: dict[str, dict[str, float]] = {
    "eyeBlinkLeft": {"eye-left-closure": 1.0},
    "eyeSquintLeft": {"eye-left-slit": 1.0},
    "eyeWideLeft": {"eye-left-opened-up": 1.0},
    "browDownLeft": {"eyebrows-left-down": 1.0},
    "browOuterUpLeft": {"eyebrows-left-extern-up": 1.0},
    "noseSneerLeft": {"nose-left-elevation": 1.0},
    "mouthSmileLeft": {"mouth-corner-puller L": 1.0},
    "mouthFrownLeft": {"mouth-depression L": 1.0},
    "mouthDimpleLeft": {"mouth-retraction L": 0.4, "mouth-corner-puller L": 0.25},
    "mouthStretchLeft": {"mouth-retraction L": 1.0},
    "mouthPressLeft": {"mouth-compression L": 1.0},
    "mouthLowerDownLeft": {"mouth-depression-retraction L": 1.0},
    "mouthUpperUpLeft": {"mouth-upward-retraction L": 1.0},
    "browInnerUp": {"eyebrows-left-inner-up": 1.0, "eyebrows-right-inner-up": 1.0},
    "jawOpen": {"mouth-open": 1.0},
    "mouthClose": {"mouth-compression": 0.6},
    "mouthFunnel": {"mouth-eversion": 1.0},
    "mouthPucker": {"mouth-pursing": 1.0},
    "mouthRollLower": {"mouth-compression lower": 1.0},
    "mouthRollUpper": {"mouth-compression upper": 1.0},
    "mouthShrugLower": {"mouth-protusion": 0.6},
    "mouthShrugUpper": {"mouth-elevation": 1.0},
}
_SIDED = (
    "browDown browOuterUp cheekSquint eyeBlink eyeLookDown eyeLookIn eyeLookOut eyeLookUp "
    "eyeSquint eyeWide mouthDimple mouthFrown mouthLowerDown mouthPress mouthSmile mouthStretch "
    "mouthUpperUp noseSneer"
).split()
_SINGLE = (
    "browInnerUp cheekPuff jawForward jawLeft jawOpen jawRight mouthClose mouthFunnel mouthLeft "
    "mouthPucker mouthRight mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper tongueOut"
).split()
NAMES: tuple[str, ...] = tuple(
    sorted([*_SINGLE, *(f"{name}{side}" for name in _SIDED for side in ("Left", "Right"))])
)
"""All 52, in alphabetical order."""
SEAM = 0.07  # world units over which the two halves of a shape fade into each other
GAZE = {"Out": (1, 0), "In": (-1, 0), "Up": (0, 1), "Down": (0, -1)}
GAZE_DEGREES = (30.0, 22.0)
"""How far an eye turns sideways, and up or down, at a weight of one."""
_JAW = 0.05  # world units that a jaw goes sideways or forward


def gaze_angles(weights: dict[str, float], side: str) -> tuple[float, float]:
    """Yaw to the subject's left and pitch upwards of the ``Left`` or ``Right`` eye, in degrees."""
    outward = 1.0 if side == "Left" else -1.0
    yaw = weights.get(f"eyeLookOut{side}", 0.0) - weights.get(f"eyeLookIn{side}", 0.0)
    pitch = weights.get(f"eyeLookUp{side}", 0.0) - weights.get(f"eyeLookDown{side}", 0.0)
    return outward * yaw * GAZE_DEGREES[0], pitch * GAZE_DEGREES[1]


def arkit_offsets(
    assets: AssetFolder, head: BareHead, points: np.ndarray, scale: float
) -> np.ndarray:
    """Offsets of every shape at a weight of one, [52, P, 3] in world units.

    Args:
        points: of the average head, [P, 3].
        scale: world units in a decimetre of the assets.
    """
    maker = _Shapes(assets, head, points, scale)
    return np.stack([maker.shape(name) for name in NAMES])


class _Shapes:
    def __init__(
        self, assets: AssetFolder, head: BareHead, points: np.ndarray, scale: float
    ) -> None:
        self.assets, self.head, self.points, self.scale = assets, head, points, scale
        self.skin = len(head.base)
        drop = -self.target("expression/units/{}/mouth-open")[: self.skin, 1]
        opened = drop / drop.max()
        self.jaw = np.concatenate([np.clip(1.3 * opened, 0, 1), np.zeros(len(points) - self.skin)])
        for part in ("lower teeth", "tongue"):
            self.jaw[self.part(part)] = 1.0
        lips = [
            np.linalg.norm(self.target(f"mouth/mouth-{lip}lip-volume-incr"), axis=1)
            for lip in ("upper", "lower")
        ]
        self.lips = [np.clip(3 * size / size.max(), 0, 1) for size in lips]

    def part(self, name: str) -> np.ndarray:
        """Points of an inner part."""
        return self.skin + np.flatnonzero(self.head.inner == PARTS.index(name) - 1)

    def side(self, left: bool) -> np.ndarray:
        """How far each point belongs to a side, [P, 1]; both sides sum to one."""
        x = np.clip(self.points[:, :1] / SEAM, -1, 1)
        share = 0.5 + 0.75 * x - 0.25 * x**3
        return share if left else 1 - share

    def target(self, name: str) -> np.ndarray:
        """Offsets [P, 3] of a target; of a pattern, the mean over the ancestries."""
        names = [name.format(each) for each in ANCESTRIES] if "{}" in name else [name]
        out = np.zeros((len(self.assets.base_mesh().vertices), 3))
        for each in names:
            index, offset = self.assets.target(each)
            out[index] += offset / len(names)
        inner = np.zeros((len(self.points) - self.skin, 3))
        return np.concatenate([out[self.head.base] * self.scale, inner])

    def unit(self, name: str) -> np.ndarray:
        """Offsets [P, 3] of an expression unit; what lies behind the lips follows the jaw."""
        name, _, half = name.partition(" ")
        out = self.target("expression/units/{}/" + name)
        if name == "mouth-open":
            chin = self.jaw[: self.skin] > 0.9
            for part in ("lower teeth", "tongue"):
                out[self.part(part)] = out[: self.skin][chin].mean(axis=0)
        if half in ("L", "R"):
            out = out * self.side(half == "L")
        elif half:
            upper, lower = self.lips
            near = upper if half == "upper" else lower
            out = out * (near / np.maximum(upper + lower, 1))[:, None]
        return out

    def shape(self, name: str) -> np.ndarray:
        """Offsets [P, 3] of one blend shape."""
        side = "Left" if name.endswith("Left") else "Right" if name.endswith("Right") else ""
        left = name.replace("Right", "Left")
        if name in ("jawLeft", "jawRight", "jawForward", "mouthLeft", "mouthRight"):
            return self._shifted(name)
        if name == "cheekPuff":
            return 1.6 * sum(self.target(f"cheek/{s}-cheek-volume-incr") for s in "lr")
        if name == "tongueOut":
            return self._tongue()
        if name.startswith("cheekSquint"):
            s = side[0].lower()
            up = self.target(f"cheek/{s}-cheek-trans-up")
            return 0.35 * up + 0.35 * self.unit(f"eye-{side.lower()}-slit")
        if name.startswith("eyeLook"):
            return self._look(name, side)
        units = _UNITS[left if side else name]
        total = np.zeros_like(self.points)
        for unit, weight in units.items():
            if side == "Right":
                unit = unit.replace("left", "right").replace(" L", " R")
            total += weight * self.unit(unit)
        return total

    def _shifted(self, name: str) -> np.ndarray:
        ways = {"Left": (1.0, 0.0, 0.0), "Right": (-1.0, 0.0, 0.0), "Forward": (0.0, 0.0, 1.0)}
        way = next(direction for word, direction in ways.items() if name.endswith(word))
        share = self.jaw
        if name.startswith("mouth"):
            middle = self.points[[self.head.upper_lip, self.head.lower_lip]].mean(axis=0)
            away = np.linalg.norm((self.points - middle) / [0.15, 0.1, 0.15], axis=1)
            share = np.exp(-(away**2)) * (self.points[:, 2] > 0.3)
            share[self.skin :] = 0.0
        return _JAW * share[:, None] * np.array(way)

    def _tongue(self) -> np.ndarray:
        out = 0.25 * self.unit("mouth-open")
        rows = self.part("tongue")
        z = self.points[rows, 2]
        # The root stays, the tip comes out furthest.
        out[rows] += np.outer((z - z.min()) / np.ptp(z), [0.0, -0.02, 0.16])
        return out

    def _look(self, name: str, side: str) -> np.ndarray:
        weights = {name: 1.0}
        rows = self.part(f"{side.lower()} eye")
        centre = 0.5 * (self.points[rows].min(axis=0) + self.points[rows].max(axis=0))
        yaw, pitch = gaze_angles(weights, side)
        out = np.zeros_like(self.points)
        local = self.points[rows] - centre
        out[rows] = local @ rotation_matrix(yaw, pitch, 0.0).T - local
        lids = {"eyeLookDown": ("closure", 0.3), "eyeLookUp": ("opened-up", 0.3)}
        unit, weight = lids.get(name.removesuffix(side), ("", 0.0))
        return out + weight * self.unit(f"eye-{side.lower()}-{unit}") if unit else out
