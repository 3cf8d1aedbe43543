"""Characters, views and scenes of the world, and random scenes by seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Final

from orchestrator.errors import Problem, RecipeError
from tools.demo_world import vocabulary as words


@dataclass(frozen=True, slots=True)
class Appearance:
    """The attributes that identify a character."""

    hair: str
    length: str
    eyes: str
    ears: str
    choker: bool


@dataclass(frozen=True, slots=True)
class Character:
    """A character with its clothes."""

    appearance: Appearance
    clothes: str


@dataclass(frozen=True, slots=True)
class Viewpoint:
    """The camera position, as in file names.

    ``framing`` is f (upper body) or b (full body), ``height`` 0..2, ``angle`` 0..7.
    """

    framing: str
    height: int
    angle: int

    @property
    def name(self) -> str:
        """Return the file name of this view, without suffix."""
        return f"{self.framing}{self.height}{self.angle}"


@dataclass(frozen=True, slots=True)
class Jitter:
    """Differences that no caption mentions.

    An offset in 1/64 of the image, and a size factor.
    """

    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Scene:
    """The content of a drawing, with one or two characters from left to right."""

    characters: tuple[Character, ...]
    view: Viewpoint
    background: str = "white"
    pose: str = "standing"
    expression: str = "smile"
    jitter: Jitter = Jitter()


KRNK: Final = Appearance("black", "short", "yellow", "black", choker=True)
TYANK: Final = Appearance("brown", "long", "green", "brown", choker=False)
HELD_OUT: Final = (KRNK, TYANK)

_ANGLE_WEIGHTS: Final = (6, 2, 2, 1, 2, 1, 2, 2)
_HEIGHT_WEIGHTS: Final = (3, 1, 1)


def parse_view(name: str) -> Viewpoint:
    """Read a file name such as ``f00`` or ``b17``.

    Raises:
        RecipeError: the name does not follow the convention.
    """
    if len(name) >= 3 and name[0] in words.FRAMINGS and name[1] in "012" and name[2] in "01234567":
        return Viewpoint(name[0], int(name[1]), int(name[2]))
    raise RecipeError(
        Problem(name, "not a view", "f or b, then the height 0..2, then the angle 0..7, for example f00 or b17"),
    )


def random_appearance(dice: random.Random) -> Appearance:
    """Choose an appearance that is not held out.

    Half of them have ears in the colour of the hair.
    """
    while True:
        hair = dice.choice(words.HAIR_COLOURS)
        appearance = Appearance(
            hair=hair,
            length=dice.choice(words.HAIR_LENGTHS),
            eyes=dice.choice(words.EYE_COLOURS),
            ears=hair if dice.random() < 0.5 else dice.choice(words.EAR_COLOURS),
            choker=dice.random() < 0.5,
        )
        if appearance not in HELD_OUT:
            return appearance


def random_scene(seed: int) -> Scene:
    """Choose a scene, never with the appearance of krnk or tyank.

    One in five shows two characters.
    """
    dice = random.Random(seed)  # noqa: S311 - images, not secrets
    count = 2 if dice.random() < 0.2 else 1
    people = tuple(Character(random_appearance(dice), dice.choice(words.CLOTHES)) for _ in range(count))
    view = Viewpoint(
        framing=dice.choice("fb"),
        height=dice.choices((0, 1, 2), _HEIGHT_WEIGHTS)[0],
        angle=dice.choices(range(8), _ANGLE_WEIGHTS)[0],
    )
    scene = Scene(people, view)
    return replace(
        scene,
        background="white" if dice.random() < 0.4 else dice.choice(words.BACKGROUNDS),
        pose=dice.choices(words.POSES, (3, 1))[0],
        expression=dice.choices(words.EXPRESSIONS, (5, 2, 1, 2))[0],
        jitter=Jitter(dice.uniform(-1.2, 1.2), dice.uniform(-0.8, 0.8), dice.uniform(0.96, 1.04)),
    )
