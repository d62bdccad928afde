"""Colours of skin, hair and cloth."""

from __future__ import annotations

import numpy as np

# sRGB skin tones from light to dark; a subject's tone interpolates them.
SKIN_TONES = np.array(
    [
        [0.865, 0.70, 0.615],
        [0.845, 0.67, 0.565],
        [0.805, 0.62, 0.505],
        [0.735, 0.545, 0.43],
        [0.615, 0.435, 0.335],
        [0.485, 0.33, 0.25],
        [0.375, 0.255, 0.198],
    ]
)
TONE_OF_ANCESTRY = {"caucasian": (0.13, 0.08), "asian": (0.28, 0.09), "african": (0.8, 0.1)}

# sRGB hair colours with their share among people of caucasian ancestry.
HAIR_COLOURS = {
    "black": ((0.075, 0.065, 0.06), 0.1),
    "dark brown": ((0.17, 0.11, 0.075), 0.26),
    "brown": ((0.29, 0.185, 0.115), 0.22),
    "light brown": ((0.44, 0.31, 0.19), 0.14),
    "blond": ((0.72, 0.56, 0.36), 0.17),
    "red": ((0.42, 0.2, 0.11), 0.11),
}
GREY = np.array([0.68, 0.67, 0.65])


def skin_tone(tone: float) -> np.ndarray:
    """sRGB colour [3] of tone 0..1."""
    place = np.clip(tone, 0, 1) * (len(SKIN_TONES) - 1)
    return np.array(
        [np.interp(place, np.arange(len(SKIN_TONES)), SKIN_TONES[:, k]) for k in range(3)]
    )


# sRGB colours of cloth by name.
CLOTH = {
    "white": (0.88, 0.87, 0.84),
    "cream": (0.85, 0.79, 0.66),
    "grey": (0.5, 0.5, 0.51),
    "charcoal": (0.2, 0.21, 0.23),
    "black": (0.09, 0.09, 0.1),
    "navy": (0.12, 0.16, 0.3),
    "blue": (0.2, 0.36, 0.62),
    "sky-blue": (0.53, 0.69, 0.83),
    "teal": (0.13, 0.42, 0.43),
    "green": (0.2, 0.42, 0.25),
    "olive": (0.38, 0.38, 0.22),
    "mustard": (0.79, 0.6, 0.2),
    "orange": (0.8, 0.42, 0.18),
    "red": (0.66, 0.14, 0.15),
    "burgundy": (0.38, 0.1, 0.15),
    "pink": (0.83, 0.55, 0.6),
    "lilac": (0.63, 0.53, 0.75),
    "purple": (0.36, 0.2, 0.46),
    "brown": (0.36, 0.24, 0.16),
    "beige": (0.7, 0.6, 0.47),
}

# What most people wear most of the time, and what goes with any other colour.
NEUTRAL = ("white", "cream", "grey", "charcoal", "black", "navy", "beige")
QUIET = (*NEUTRAL, "blue", "sky-blue", "teal", "green", "olive", "burgundy", "brown")


def cloth_name(colour: tuple[float, float, float]) -> str:
    """The name in `CLOTH` nearest to an sRGB colour."""
    return min(
        CLOTH, key=lambda name: sum((a - b) ** 2 for a, b in zip(CLOTH[name], colour, strict=True))
    )
