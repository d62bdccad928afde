"""Finding faces in photographs with what OpenCV ships: the Viola-Jones cascades.

Coordinates are pixels of the photograph, x right and y down; an angle is positive when the head's
left side in the picture is the higher one, i.e. when the line of the eyes falls to the right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from photos.geometry import apply, inverse, line_angle, load_cv2, turn_and_scale, warp
from photos.turn import estimate_turn
from runtime.errors import UserError

SEARCH_SIDE = 640  # the photograph's longer side while searching
ROLLS = (0, -15, 15, -30, 30, -45, 45)
# Tried too, as photographs lie on their side, unless so many boxes agree on an upright face (lone
# false hits have 3 to 7).
MORE_ROLLS, UPRIGHT_VOTES = (-75, 75, -105, 105, -135, 135, -165, 165), 20
# A face's patch: its box is PATCH_FACE wide in the middle of PATCH pixels, eyes level.
PATCH, PATCH_FACE = 400, 200
# The frontal cascade's box around eyes: their line's height and half distance in box widths.
BOX_EYE_LINE, BOX_HALF_EYES = 0.385, 0.175
MAX_TURN = 22.0  # degrees to the side; see portrait_turn for how they are estimated
# From here the nearer eye looks so much larger, or both stand so close, that the head is turned by
# more than about 35° (measured on renders from -90° to 90°; frontal heads: 1.1 and 0.36).
TURNED_EYE_RATIO, TURNED_EYE_DISTANCE = 1.5, 0.30
FAR_TURN, PROFILE = 35.0, 75.0  # degrees, where no more is known
WEAK_FRONTAL = 8  # boxes that agree on a face; frontal heads have 30 and more


@dataclass(frozen=True)
class Face:
    """A face in a photograph.

    Attributes:
        centre: middle of the face (x, y).
        width: of the frontal cascade's box around it, or what a landmark model implies.
        eyes: [2, 2] (x, y) of both eyes, the left one in the picture first.
        turned: whether the head is turned too far to the side, about MAX_TURN or more.
        has_box: whether ``width`` was measured beside the eyes' distance.
        turn: estimate of the head's turn to either side, in degrees.
    """

    centre: tuple[float, float]
    width: float
    eyes: np.ndarray
    turned: bool
    has_box: bool = True
    turn: float = 0.0

    @property
    def roll(self) -> float:
        """Angle of the line of the eyes in degrees."""
        return line_angle(self.eyes)


class CascadeDetector:
    """Faces by OpenCV's frontal, profile and eye cascades; needs no other file.

    The frontal cascade is tried at seven angles, and all round where that finds little. Each hit is
    then turned upright, and must show eyes or please a second frontal cascade. A turned head shows
    in the face's lost symmetry, in the eyes' sizes and distance, or to the profile cascade alone.
    """

    def __init__(self) -> None:
        self.cv2 = load_cv2()
        self.frontal = self._cascade("frontalface_alt2")
        self.second = self._cascade("frontalface_default")
        self.profile = self._cascade("profileface")
        self.eyes = [self._cascade("eye"), self._cascade("eye_tree_eyeglasses")]

    def _cascade(self, name: str) -> Any:
        if not hasattr(self.cv2, "CascadeClassifier"):
            raise UserError(
                f"OpenCV {self.cv2.__version__} has no face cascades any more; "
                'pip install "opencv-python-headless<5", or choose --detector yunet.'
            )
        path = f"{self.cv2.data.haarcascades}haarcascade_{name}.xml"
        cascade = self.cv2.CascadeClassifier(path)
        if cascade.empty():
            raise UserError(f'{path} is missing; reinstall "opencv-python-headless<5".')
        return cascade

    def __call__(self, picture: np.ndarray) -> list[Face]:
        """All faces of a photograph, uint8 [H, W, 3], the largest first."""
        grey = _stretched(self.cv2.cvtColor(picture, self.cv2.COLOR_RGB2GRAY))
        faces = [self._examine(grey, *found) for found in self._search(grey)]
        if not any(faces):
            faces = [self._examine(grey, *found) for found in self._search_profiles(grey)]
        merged: list[Face] = []
        for face in sorted((f for f in faces if f is not None), key=lambda f: -f.width):
            if all(math.dist(face.centre, other.centre) > 0.5 * other.width for other in merged):
                merged.append(face)
        return merged

    def _search(self, grey: np.ndarray) -> list[tuple[tuple[float, float], float, float]]:
        """Candidates: (centre, box width, roll)."""
        scale = min(1.0, SEARCH_SIDE / max(grey.shape))
        height, width = (max(1, round(v * scale)) for v in grey.shape)
        small = self.cv2.resize(grey, (width, height), interpolation=self.cv2.INTER_AREA)
        hits = [hit for roll in ROLLS for hit in self._hits(small, roll)]
        if max((hit[3] for hit in hits), default=0) < UPRIGHT_VOTES:
            hits += [hit for roll in MORE_ROLLS for hit in self._hits(small, roll)]
        hits = [(centre / scale, box / scale, roll, votes) for centre, box, roll, votes in hits]
        groups: list[list[tuple[np.ndarray, float, float, float]]] = []
        for hit in sorted(hits, key=lambda h: -h[3]):
            for group in groups:
                if math.dist(hit[0], group[0][0]) < 0.5 * max(hit[1], group[0][1]):
                    group.append(hit)
                    break
            else:
                groups.append([hit])
        found = []
        for group in groups:
            centre, box, roll, _ = group[0]
            # Angles near the strongest hit's refine it; ±180° is one angle.
            off = [((h[2] - roll + 180) % 360 - 180, h[3]) for h in group]
            near = [(angle, votes) for angle, votes in off if abs(angle) < 50]
            roll += sum(angle * votes for angle, votes in near) / sum(votes for _, votes in near)
            found.append(((float(centre[0]), float(centre[1])), box, roll))
        return found

    def _hits(
        self, picture: np.ndarray, roll: float
    ) -> list[tuple[np.ndarray, float, float, float]]:
        """The frontal cascade's boxes at one angle: (centre, width, roll, votes)."""
        height, width = picture.shape
        c, s = abs(math.cos(math.radians(roll))), abs(math.sin(math.radians(roll)))
        w, h = (int(v) + 1 for v in (c * width + s * height, s * width + c * height))
        matrix = turn_and_scale((width / 2, height / 2), roll, 1.0, (w / 2, h / 2))
        turned = warp(picture, matrix, w, h)
        boxes, counts = self.frontal.detectMultiScale2(turned, 1.1, 3, minSize=(26, 26))
        back = inverse(matrix)
        return [
            (apply(back, np.array([x + box / 2, y + box / 2])), float(box), roll, float(votes))
            for (x, y, box, _), votes in zip(boxes, counts, strict=True)
        ]

    def _search_profiles(self, grey: np.ndarray) -> list[tuple[tuple[float, float], float, float]]:
        """Candidates of heads seen from the side."""
        scale = min(1.0, SEARCH_SIDE / max(grey.shape))
        height, width = (max(1, round(v * scale)) for v in grey.shape)
        small = self.cv2.resize(grey, (width, height), interpolation=self.cv2.INTER_AREA)
        found = []
        for mirrored in (False, True):
            seen = small[:, ::-1].copy() if mirrored else small
            for x, y, box, _ in self.profile.detectMultiScale(seen, 1.1, 6, minSize=(30, 30)):
                x = width - x - box if mirrored else x
                found.append((((x + box / 2) / scale, (y + box / 2) / scale), box / scale, 0.0))
        return found

    def _examine(
        self, grey: np.ndarray, centre: tuple[float, float], width: float, roll: float
    ) -> Face | None:
        """Turn a candidate upright and measure it; None if it is no face after all."""
        middle = (PATCH / 2, PATCH / 2)
        box, eyes = None, None
        for _ in range(3):
            to_patch = turn_and_scale(centre, roll, PATCH_FACE / width, middle)
            patch = warp(grey, to_patch, PATCH, PATCH)
            box, count = self._frontal_box(patch)
            if box is None:
                break
            eyes = self._eye_pair(patch, box)
            back = inverse(to_patch)
            centre = tuple(apply(back, box[:2] + box[2] / 2))
            width = float(box[2] / PATCH_FACE * width)
            tilt = 0.0 if eyes is None else line_angle(eyes[:, :2])
            if abs(tilt) < 2:
                break
            roll += tilt
        if box is None:
            sides = [self._profile_count(patch), self._profile_count(patch[:, ::-1].copy())]
            if max(sides) < 6:
                return None
            eyes_at = apply(inverse(to_patch), _usual_eyes(np.array([100.0, 100.0, 200.0])))
            return Face(centre, width, eyes_at, turned=True, turn=PROFILE)
        if eyes is None:
            sure = len(self.second.detectMultiScale(patch, 1.1, 8, minSize=(120, 120)))
            if not sure or count < 2 * WEAK_FRONTAL:
                return None
            eyes_at = apply(back, _usual_eyes(box))
            # Where the eyes are is a guess here, and so is the axis of symmetry.
            turn = estimate_turn(grey, eyes_at, roll, width)
            return Face(centre, width, eyes_at, turn > 1.5 * MAX_TURN, turn=turn / 1.5)
        sizes = sorted(eyes[:, 2])
        apart = math.dist(eyes[0, :2], eyes[1, :2]) / box[2]
        eyes_at = apply(back, eyes[:, :2])
        turn = estimate_turn(grey, eyes_at, line_angle(eyes_at), width)
        far = (
            sizes[1] > TURNED_EYE_RATIO * sizes[0]
            or apart < TURNED_EYE_DISTANCE
            or count < WEAK_FRONTAL
        )
        turn = max(turn, FAR_TURN) if far else turn
        return Face(centre, width, eyes_at, turn > MAX_TURN, turn=turn)

    def _frontal_box(self, patch: np.ndarray) -> tuple[np.ndarray | None, int]:
        """(x, y, width) of the frontal box nearest to the middle, and how many agree on it."""
        boxes, counts = self.frontal.detectMultiScale2(patch, 1.1, 3, minSize=(120, 120))
        if not len(boxes):
            return None, 0
        best = int(np.argmax(counts))
        return np.asarray(boxes[best][:3], dtype=float), int(counts[best])

    def _profile_count(self, patch: np.ndarray) -> int:
        _, counts = self.profile.detectMultiScale2(patch, 1.1, 3, minSize=(120, 120))
        return int(max(counts, default=0))

    def _eye_pair(self, patch: np.ndarray, box: np.ndarray) -> np.ndarray | None:
        """[2, 3] (x, y, size) of the eyes in a patch: the most credible pair of both cascades."""
        x, y, width = box
        top, left = max(0, int(y + 0.1 * width)), max(0, int(x))
        region = patch[top : int(y + 0.62 * width), left : int(x + width)]
        pairs = []
        for cascade in self.eyes:
            low, high = int(0.11 * width), int(0.4 * width)
            found, _, weights = cascade.detectMultiScale3(
                region, 1.05, 3, minSize=(low, low), maxSize=(high, high), outputRejectLevels=True
            )
            eyes = [
                (np.array([left + a + s / 2, top + b + s / 2, s]), float(w))
                for (a, b, s, _), w in zip(found, np.ravel(weights), strict=True)
            ]
            options = [
                (weight_a + weight_b, np.stack([a, b]))
                for a, weight_a in eyes
                for b, weight_b in eyes
                if 0.22 * width < b[0] - a[0] < 0.58 * width
                and abs(b[1] - a[1]) < 0.5 * (b[0] - a[0])
                and abs((a[0] + b[0]) / 2 - (x + width / 2)) < 0.12 * width
                and 0.5 < a[2] / b[2] < 2
            ]
            if options:
                pairs.append(max(options, key=lambda option: option[0])[1])
        return np.mean(pairs, axis=0) if pairs else None


def _usual_eyes(box: np.ndarray) -> np.ndarray:
    """Return where eyes usually are in a frontal box (x, y, width): [2, 2]."""
    x, y, width = box
    line = y + BOX_EYE_LINE * width
    middle = x + width / 2
    return np.array(
        [[middle - BOX_HALF_EYES * width, line], [middle + BOX_HALF_EYES * width, line]]
    )


def _stretched(grey: np.ndarray) -> np.ndarray:
    """Dark pictures brightened linearly, so that the cascades see something."""
    bright = float(np.percentile(grey, 99))
    if not 0 < bright < 160:
        return grey
    return np.minimum(grey.astype(np.float32) * (220 / bright), 255).astype(np.uint8)
