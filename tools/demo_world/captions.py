"""Captions of scenes: tags in the fixed order of the recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.demo_world import vocabulary as words

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

    from tools.demo_world.attributes import Character, Scene, Viewpoint


def view_tags(view: Viewpoint) -> tuple[str, ...]:
    """Return height (nothing at level), direction and framing of a view."""
    tags = (words.HEIGHTS[view.height], words.DIRECTIONS[view.angle], words.FRAMINGS[view.framing])
    return tuple(tag for tag in tags if tag)


def character_tags(character: Character) -> tuple[str, ...]:
    """Return the tags of one character, appearance before clothes."""
    appearance = character.appearance
    choker = (words.CHOKER,) if appearance.choker else ()
    return (
        f"{appearance.hair} hair",
        f"{appearance.length} hair",
        f"{appearance.eyes} eyes",
        f"{appearance.ears} ears",
        *choker,
        character.clothes,
    )


def scene_tags(scene: Scene) -> tuple[str, ...]:
    """Return the tags of the scene, after those of the characters."""
    return (
        words.SIMPLE_BACKGROUND,
        f"{scene.background} background",
        *view_tags(scene.view),
        scene.pose,
        words.GAZES[scene.view.angle],
        scene.expression,
    )


def caption(scene: Scene, subject: str | None = None) -> str:
    """Return the full caption.

    ``subject`` (trigger words) replaces the class word and the tags of the characters.
    """
    if subject is not None:
        return ", ".join((subject, *scene_tags(scene)))
    two = len(scene.characters) == 2
    tags = (tag for character in scene.characters for tag in character_tags(character))
    return ", ".join((words.CLASS_WORD_TWO if two else words.CLASS_WORD, *tags, *scene_tags(scene)))


def thinned_caption(scene: Scene, dice: random.Random, names: Sequence[str] = ()) -> str:
    """Return the caption without some tags of the characters.

    A missing tag leaves its attribute open.

    ``names``, left to right, replace the class word of one character or precede that of two. With names, most tags are left
    out.
    """

    def kept() -> Iterator[str]:
        for character in scene.characters:
            keep = dice.choice((0.0, 0.0, 0.3) if names else (0.0, 0.5, 1.0, 1.0))
            yield from (tag for tag in character_tags(character) if dice.random() < keep)

    subjects = (*names, words.CLASS_WORD_TWO) if len(scene.characters) == 2 else names or (words.CLASS_WORD,)
    *fixed, pose, gaze, expression = scene_tags(scene)
    rest = (tag for tag in (pose, gaze, expression) if dice.random() < 0.9)
    return ", ".join((*subjects, *kept(), *fixed, *rest))
