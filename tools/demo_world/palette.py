"""The colours of the world, RGB 0..255.

They are far apart, so that a small model and the attribute reader distinguish them.
"""

from __future__ import annotations

from enum import StrEnum, auto
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tools.demo_world.attributes import Character

Rgb = tuple[int, int, int]


class Part(StrEnum):
    """A part of the drawing with one colour."""

    BACKGROUND = auto()
    SHADOW = auto()
    HAIR = auto()
    EARS = auto()
    INNER_EAR = auto()
    SKIN = auto()
    BLUSH = auto()
    EYES = auto()
    PUPIL = auto()
    GLINT = auto()
    LINE = auto()
    MOUTH = auto()
    CHOKER = auto()
    BELL = auto()
    TOP = auto()
    TRIM = auto()
    ACCENT = auto()
    BOTTOM = auto()
    LEGS = auto()
    SHOES = auto()
    CAPE = auto()
    HEADGEAR = auto()


HAIR: Final[Mapping[str, Rgb]] = {
    "black": (44, 40, 52),
    "brown": (150, 92, 54),
    "blonde": (248, 214, 96),
    "blue": (72, 132, 224),
    "pink": (246, 132, 178),
    "silver": (186, 196, 212),
}
EYES: Final[Mapping[str, Rgb]] = {
    "yellow": (252, 200, 20),
    "green": (40, 176, 72),
    "blue": (36, 108, 236),
    "red": (224, 36, 48),
    "purple": (150, 60, 210),
}
BACKGROUNDS: Final[Mapping[str, Rgb]] = {
    "white": (255, 255, 255),
    "blue": (188, 222, 250),
    "pink": (252, 208, 222),
    "green": (200, 238, 196),
    "yellow": (254, 240, 178),
    "grey": (208, 208, 208),
}
SKIN: Final[Rgb] = (255, 226, 204)
_DARK: Final[Rgb] = (40, 34, 46)
_WHITE: Final[Rgb] = (252, 252, 255)

# top, trim (collar, shoulders), accent (scarf, gem, pocket), bottom (skirt, shorts, trousers), legs, shoes
CLOTHES: Final[Mapping[str, tuple[Rgb, Rgb, Rgb, Rgb, Rgb, Rgb]]] = {
    "white shirt": (_WHITE, (222, 228, 240), (150, 160, 190), (86, 100, 140), SKIN, (96, 70, 60)),
    "school uniform": ((52, 72, 148), _WHITE, (226, 44, 60), (52, 72, 148), _WHITE, (96, 60, 50)),
    "plugsuit": ((0, 176, 170), _WHITE, (255, 120, 30), (0, 176, 170), (0, 176, 170), _WHITE),
    "hoodie": ((255, 150, 40), (255, 190, 100), _WHITE, (70, 84, 110), (70, 84, 110), (220, 60, 60)),
    "dress": ((158, 92, 206), _WHITE, (252, 210, 60), (158, 92, 206), SKIN, (120, 60, 150)),
    "sweater": ((84, 164, 76), (200, 230, 150), (60, 130, 60), (130, 96, 72), (130, 96, 72), (70, 60, 60)),
}


def colours(character: Character, background: str) -> dict[Part, Rgb]:
    """Return the colour of every part of this character's drawing."""
    appearance = character.appearance
    top, trim, accent, bottom, legs, shoes = CLOTHES[character.clothes]
    iris = EYES[appearance.eyes]
    return {
        Part.BACKGROUND: BACKGROUNDS[background],
        Part.SHADOW: darker(BACKGROUNDS[background], 0.88),
        Part.HAIR: HAIR[appearance.hair],
        Part.EARS: HAIR[appearance.ears],
        Part.INNER_EAR: (255, 178, 178),
        Part.SKIN: SKIN,
        Part.BLUSH: (255, 184, 172),
        Part.EYES: iris,
        Part.PUPIL: darker(iris, 0.35),
        Part.GLINT: _WHITE,
        Part.LINE: _DARK,
        Part.MOUTH: (196, 72, 72),
        Part.CHOKER: (214, 28, 44),
        Part.BELL: (255, 206, 40),
        Part.TOP: top,
        Part.TRIM: trim,
        Part.ACCENT: accent,
        Part.BOTTOM: bottom,
        Part.LEGS: legs,
        Part.SHOES: shoes,
    }


def darker(colour: Rgb, factor: float) -> Rgb:
    """Return ``colour`` multiplied by ``factor`` 0..1."""
    red, green, blue = (int(channel * factor) for channel in colour)
    return red, green, blue
