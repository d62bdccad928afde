"""One subject: every choice that makes a person, as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from studio.people.body import Shape


@dataclass
class Subject:
    """One person.

    Args:
        seed, index: what the subject was drawn from.
        shape: body and face.
        skin: skin texture's name; tone: 0 light .. 1 dark.
        hair: hair style's name; hair_mirrored; hair_colour: sRGB; hair_name: its name.
        receding: how far a procedural hairline has gone back, world units; beyond 0.2 the crown is
            bare.
        eyebrows, eyelashes, eyes: names of those.
        hair_length, hair_wave, hair_volume: of card styles: factor on what hangs, amplitude of
            its waves (0..1), lift off the head (0..1).
        clothes: a garment of the assets or a key of `studio.clothes.garments.CUTS`;
            clothes_hue: turn of its hue (1 = full circle); clothes_value, clothes_saturation:
            factors.
        pattern: one of `studio.clothes.patterns.PATTERNS`, for cuts and garments without a texture;
            pattern_scale: its size; clothes_colour, clothes_colour2, clothes_trim: sRGB of the
            cloth, its pattern and its neckband.
        hat: "none" or a key of `studio.clothes.hats.HATS`; hat_colour, hat_trim: sRGB.
        beard: "none" or a key of `studio.hair.shells.BEARD_STYLES`; stubble: strength of its
            shadow.
        freckles, moles: how many; blush, lipstick: strengths, 0..1.
        glasses: "none", "round", "square" or "sun"; glasses_colour: sRGB of the frame.
    """

    seed: int
    index: int
    shape: Shape = field(default_factory=Shape)
    skin: str = ""
    tone: float = 0.3
    hair: str = ""
    hair_mirrored: bool = False
    hair_colour: tuple[float, float, float] = (0.2, 0.15, 0.1)
    hair_name: str = "brown"
    hair_length: float = 1.0
    receding: float = 0.0
    hair_wave: float = 0.0
    hair_volume: float = 0.0
    eyebrows: str = ""
    eyelashes: str = ""
    eyes: str = "brown"
    clothes: str = ""
    clothes_hue: float = 0.0
    clothes_saturation: float = 1.0
    clothes_value: float = 1.0
    pattern: str = "plain"
    pattern_scale: float = 1.0
    clothes_colour: tuple[float, float, float] = (0.5, 0.5, 0.5)
    clothes_colour2: tuple[float, float, float] = (0.88, 0.87, 0.84)
    clothes_trim: tuple[float, float, float] = (0.5, 0.5, 0.5)
    hat: str = "none"
    hat_colour: tuple[float, float, float] = (0.2, 0.2, 0.2)
    hat_trim: tuple[float, float, float] = (0.1, 0.1, 0.1)
    beard: str = "none"
    stubble: float = 0.0
    freckles: int = 0
    moles: int = 0
    blush: float = 0.0
    lipstick: float = 0.0
    glasses: str = "none"
    glasses_colour: tuple[float, float, float] = (0.1, 0.1, 0.1)

    @property
    def is_man(self) -> bool:
        return self.shape.gender > 0.5

    def attributes(self) -> dict:
        """JSON-ready values of everything chosen, without what they were drawn from."""
        out = rounded(asdict(self))
        del out["seed"], out["index"]
        return out


def rounded(value):
    """JSON-ready copy of nested values: numbers to 4 digits, tuples as lists."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value
