"""Cutting a framed portrait out of its background: GrabCut seeded by the face, soft edges.

Everything here works on a square picture in which the face already stands as in the set, so the
seeds are shapes at fixed places. Legend: S side of the picture in pixels, u the face's width.
"""

from __future__ import annotations

import numpy as np

from photos.framing import Framing
from photos.geometry import load_cv2
from runtime.errors import UserError
from runtime.seeds import seed_of

MATTE_SIDE = 384  # GrabCut's own resolution; the edge is refined at the picture's
ITERATIONS = 4
BAND = 0.016  # half width of the soft edge, of S
GUIDED_EPS = 3e-4  # colour variance below which the guided filter smooths
WHITE = 250  # least of a channel, of 255, that counts as a white background


def cut_out(picture: np.ndarray, covered: np.ndarray, framing: Framing) -> np.ndarray:
    """Alpha of head and shoulders by GrabCut (Rother et al. 2004) and a guided filter.

    Args:
        picture: framed portrait, uint8 [S, S, 3].
        covered: bool [S, S], where the photograph has pixels.
        framing: where the face stands.

    Returns:
        float32 [S, S] in [0, 1].

    Raises:
        UserError: the person can't be told from the background.
    """
    cv2 = load_cv2()
    side = len(picture)
    small = cv2.resize(picture, (MATTE_SIDE, MATTE_SIDE), interpolation=cv2.INTER_AREA)
    seeds = seed_mask(MATTE_SIDE, framing)
    inside = cv2.resize(covered.astype(np.uint8), (MATTE_SIDE, MATTE_SIDE)) > 0
    seeds[~inside] = cv2.GC_BGD
    face = seeds == cv2.GC_FGD
    # GrabCut clusters colours from random starts.
    cv2.setRNGSeed(seed_of("grabcut") & 0x7FFFFFFF)
    try:
        cv2.grabCut(
            small, seeds, None, np.zeros((1, 65)), np.zeros((1, 65)), ITERATIONS,
            cv2.GC_INIT_WITH_MASK,
        )  # fmt: skip
    except cv2.error as error:
        raise UserError(f"the background can't be told from the person ({error.err}).") from None
    person = np.isin(seeds, (cv2.GC_FGD, cv2.GC_PR_FGD))
    person = _filled_downwards(_one_piece(person, face), framing)
    mask = cv2.resize(person.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    return soft_edge(picture, mask > 0.5)


def seed_mask(side: int, framing: Framing) -> np.ndarray:
    """GrabCut's labels at the start, uint8 [side, side]: surely and probably person, and the rest.

    Surely person are the face, the skull, the neck and the chest; probably an ellipse with room for
    hair and a trapezoid of shoulders; surely background what is far from the head.
    """
    cv2 = load_cv2()
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    u = framing.face_width
    x, y = (x - framing.eyes[0]) / u, (y - framing.eyes[1]) / u

    def ellipse(cy: float, rx: float, ry: float) -> np.ndarray:
        return (x / rx) ** 2 + ((y - cy) / ry) ** 2 < 1

    mask = np.full((side, side), cv2.GC_PR_BGD, np.uint8)
    mask[~ellipse(0.1, 0.8, 1.0) & (y < 0.6)] = cv2.GC_BGD
    # The proportions are tuned on renders, whose true alpha is known, over photographs.
    shoulders = (y > 0.62) & (np.abs(x) < 0.32 + 1.15 * (y - 0.62))
    mask[ellipse(0.0, 0.48, 0.68) | shoulders] = cv2.GC_PR_FGD
    neck = (y > 0.3) & (np.abs(x) < 0.14 + 0.25 * np.maximum(y - 0.7, 0))
    chest = y > 0.8 + 0.4 * np.abs(x)
    skull = ellipse(-0.12, 0.29, 0.34)  # takes in some hair, so that GrabCut knows its colour
    mask[ellipse(0.14, 0.30, 0.40) | skull | neck | chest] = cv2.GC_FGD
    return mask


def _filled_downwards(person: np.ndarray, framing: Framing) -> np.ndarray:
    """Below the chin, what lies under a part of the person is the person: clothes may have the
    background's colour, but a bust has no gaps there."""
    top = round((framing.eyes[1] + 0.62 * framing.face_width) * len(person))
    filled = person.copy()
    filled[top:] = np.logical_or.accumulate(person[top:], axis=0)
    return filled


def _one_piece(person: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Only what hangs together with the face, without small holes and thin threads."""
    cv2 = load_cv2()
    side = len(person)
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    opened = cv2.morphologyEx(person.astype(np.uint8), cv2.MORPH_OPEN, brush)
    opened |= face.astype(np.uint8)
    _, pieces = cv2.connectedComponents(opened)
    numbers = np.unique(pieces[face])
    kept = np.isin(pieces, numbers[numbers > 0])
    _, holes, stats, _ = cv2.connectedComponentsWithStats((~kept).astype(np.uint8))
    edge = set(np.unique(np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]])))
    for number in range(1, len(stats)):
        # An arm akimbo leaves a true hole; a highlight on the skin leaves a small false one.
        if number not in edge and stats[number, cv2.CC_STAT_AREA] < 0.01 * side * side:
            kept[holes == number] = True
    return kept


def soft_edge(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A hard mask, bool [S, S], as alpha that follows the picture's edges and hair.

    A colour-guided filter (He, Sun, Tang 2010, eq. 19) of the mask, in a band along its edge.
    """
    cv2 = load_cv2()
    radius = max(2, round(BAND * len(mask)))
    window = (2 * radius + 1, 2 * radius + 1)
    hard = mask.astype(np.float32)
    guide = picture.astype(np.float32) / 255

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, window)

    mean_guide, mean_hard = mean(guide), mean(hard)
    products = mean((guide[..., :, None] * guide[..., None, :]).reshape(*mask.shape, 9))
    variance = products.reshape(*mask.shape, 3, 3) - (
        mean_guide[..., :, None] * mean_guide[..., None, :]
    )
    covariance = mean(guide * hard[..., None]) - mean_guide * mean_hard[..., None]
    a = np.linalg.solve(variance + GUIDED_EPS * np.eye(3), covariance[..., None])[..., 0]
    b = mean_hard - (a * mean_guide).sum(-1)
    soft = (mean(a.astype(np.float32)) * guide).sum(-1) + mean(b.astype(np.float32))
    # The filter leaves a faint veil over both sides; the ends are pulled to 0 and 1.
    soft = np.clip((soft - 0.12) / 0.76, 0, 1)
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, window)
    sure = cv2.erode(mask.astype(np.uint8), brush) > 0
    out = cv2.dilate(mask.astype(np.uint8), brush) == 0
    return np.where(sure, 1, np.where(out, 0, soft)).astype(np.float32)


def foreground_colours(picture: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The person's own colours where the edge is transparent, so that no halo stays.

    Blur fusion (Forte and Pitié 2021, eq. 4 and 5), coarse then fine.

    Args:
        picture: uint8 [S, S, 3].
        alpha: float32 [S, S].

    Returns:
        uint8 [S, S, 3]; equal to ``picture`` where alpha is 1.
    """
    cv2 = load_cv2()
    image = picture.astype(np.float32) / 255
    weight = alpha[..., None].astype(np.float32)
    person, behind = image, image
    for part in (0.18, 0.012):
        radius = 2 * max(1, round(part * len(alpha) / 2)) + 1

        def mean(values: np.ndarray, window: tuple[int, int] = (radius, radius)) -> np.ndarray:
            return cv2.blur(values, window).reshape(*alpha.shape, -1)

        person = mean(person * weight) / (mean(weight) + 1e-5)
        behind = mean(behind * (1 - weight)) / (mean(1 - weight) + 1e-5)
        person = person + weight * (image - weight * person - (1 - weight) * behind)
        person = np.clip(person, 0, 1)
    person = np.where(weight >= 1, image, person)
    return (person * 255 + 0.5).astype(np.uint8)


def with_alpha(picture: np.ndarray) -> np.ndarray:
    """Return a picture, uint8 [H, W, 3 | 4], as RGBA; white that reaches its border is empty."""
    if picture.shape[2] == 4:
        return picture
    from scipy.ndimage import label

    white, _ = label(picture.min(axis=2) >= WHITE)
    border = np.unique(np.concatenate([white[0], white[-1], white[:, 0], white[:, -1]]))
    empty = np.isin(white, border[border > 0])
    return np.dstack([picture, np.where(empty, 0, 255).astype(np.uint8)])
