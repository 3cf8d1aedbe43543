"""Captions of scenes."""

from __future__ import annotations

import random

from tools.demo_world import vocabulary
from tools.demo_world.attributes import KRNK, Character, Scene, Viewpoint, random_scene
from tools.demo_world.captions import caption, thinned_caption


def test_caption_has_the_order_of_the_recipes() -> None:
    scene = Scene((Character(KRNK, "school uniform"),), Viewpoint("b", 1, 2))
    assert caption(scene) == (
        "character, black hair, short hair, yellow eyes, black ears, choker, school uniform, simple background, "
        "white background, from above, from side, full body, standing, looking away, smile"
    )
    assert caption(scene, "krnk") == (
        "krnk, simple background, white background, from above, from side, full body, standing, looking away, smile"
    )


def test_thinned_captions_drop_tags_of_characters_only() -> None:
    dice = random.Random(1)  # noqa: S311
    scene = random_scene(11)
    full = caption(scene).split(", ")
    thin = [thinned_caption(scene, dice).split(", ") for _ in range(40)]
    assert all(set(tags) <= set(full) for tags in thin)
    assert all("simple background" in tags and vocabulary.FRAMINGS[scene.view.framing] in tags for tags in thin)
    assert len({len(tags) for tags in thin}) > 3
