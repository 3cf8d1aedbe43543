"""Scene -> caption: comma-separated tags in the fixed order of the recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.demo_world import vocabulary as words

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

    from tools.demo_world.attributes import Character, Scene, View


def view_tags(view: View) -> tuple[str, ...]:
    """Return height (nothing at level), direction and framing of a view."""
    tags = (words.HEIGHTS[view.height], words.DIRECTIONS[view.angle], words.FRAMINGS[view.framing])
    return tuple(tag for tag in tags if tag)


def character_tags(character: Character) -> tuple[str, ...]:
    """Return the further tags that describe one character: looks, then clothes."""
    looks = character.looks
    choker = (words.CHOKER,) if looks.choker else ()
    return (
        f"{looks.hair} hair",
        f"{looks.length} hair",
        f"{looks.eyes} eyes",
        f"{looks.ears} ears",
        *choker,
        character.clothes,
    )


def scene_tags(scene: Scene) -> tuple[str, ...]:
    """Return the tags after the further tags: background, height, direction, framing, pose, gaze, expression."""
    return (
        words.SIMPLE_BACKGROUND,
        f"{scene.background} background",
        *view_tags(scene.view),
        scene.pose,
        words.GAZES[scene.view.angle],
        scene.expression,
    )


def caption(scene: Scene, subject: str | None = None) -> str:
    """Return the full caption; ``subject`` (a trigger word, maybe with tags) stands in for class word and further tags."""
    if subject is not None:
        return ", ".join((subject, *scene_tags(scene)))
    two = len(scene.characters) == 2
    further = (tag for character in scene.characters for tag in character_tags(character))
    return ", ".join((words.CLASS_WORD_TWO if two else words.CLASS_WORD, *further, *scene_tags(scene)))


def thinned_caption(scene: Scene, dice: random.Random, names: Sequence[str] = ()) -> str:
    """Return the caption with further tags left out at random, so that what is not said can be anything.

    Residents' ``names``, left to right, stand for the class word, or before it where there are two; then the looks are
    mostly left unsaid.
    """

    def kept() -> Iterator[str]:
        for character in scene.characters:
            keep = dice.choice((0.0, 0.0, 0.3) if names else (0.0, 0.5, 1.0, 1.0))
            yield from (tag for tag in character_tags(character) if dice.random() < keep)

    called = (*names, words.CLASS_WORD_TWO) if len(scene.characters) == 2 else names or (words.CLASS_WORD,)
    *seen, pose, gaze, expression = scene_tags(scene)
    rest = (tag for tag in (pose, gaze, expression) if dice.random() < 0.9)
    return ", ".join((*called, *kept(), *seen, *rest))
