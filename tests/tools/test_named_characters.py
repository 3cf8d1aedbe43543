"""Named characters and those that are held out."""

from __future__ import annotations

import random

from tools.demo_world import vocabulary
from tools.demo_world.attributes import HELD_OUT, random_scene
from tools.demo_world.captions import thinned_caption
from tools.demo_world.named_characters import by_appearance, named_characters, named_scene


def test_captions_of_named_characters_begin_with_names() -> None:
    dice = random.Random(1)  # noqa: S311
    scenes = [named_scene(seed) for seed in range(200)]
    alone = next(scene for scene in scenes if len(scene.characters) == 1)
    two = next(scene for scene in scenes if len(scene.characters) == 2)
    assert all(character.appearance in by_appearance() for scene in scenes for character in scene.characters)
    assert two.characters[0].appearance != two.characters[1].appearance
    assert thinned_caption(alone, dice, ["bado"]).startswith("bado, ")
    assert thinned_caption(two, dice, ["bado", "fizu"]).startswith("bado, fizu, two characters, ")


def test_demo_characters_are_held_out() -> None:
    appearances = {character.appearance for seed in range(3000) for character in random_scene(seed).characters}
    assert len(appearances) > 500
    assert not appearances & set(HELD_OUT)
    assert not {named.appearance for named in named_characters()} & set(HELD_OUT)
    taken = {word for named in named_characters() for word in (named.name,)} | set(vocabulary.words())
    assert not taken & set(vocabulary.TRIGGERS)
