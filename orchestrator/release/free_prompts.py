"""Prompts without the trigger words.

A LoRA should leave their images as the base model draws them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.recipe import Recipe


def free(recipe: Recipe) -> Recipe:
    """Return the recipe with class words for trigger words in its prompts.

    It keeps as many prompts as ``select.free_prompts``, or as fill the last batch of the renderer, but one at least.
    """
    prompts = {
        f"free-{column['name']}": recipe.render.prompts[column["name"]].model_copy(
            update={"prompt": text(recipe, column["prompt"])}
        )
        for column in recipe.columns()[: count(recipe)]
    }
    return recipe.model_copy(update={"render": recipe.render.model_copy(update={"prompts": prompts})})


def count(recipe: Recipe) -> int:
    """Return the number of prompts to draw without the trigger words."""
    prompts, batch = len(recipe.render.prompts), recipe.render.batch_size
    return min(prompts, recipe.select.free_prompts or max(1, -prompts % batch))


def text(recipe: Recipe, prompt: str) -> str:
    """Return a prompt without trigger words, class words in front."""
    words = {word.strip() for trigger in _triggers(recipe) for word in trigger.split(",")}
    pattern = re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in sorted(words, key=len, reverse=True) if word))
    kept = [" ".join(pattern.sub("", tag).split()) if words else tag.strip() for tag in prompt.split(",")]
    classes = [
        " ".join(pattern.sub("", source.class_tokens).split()) if words else source.class_tokens
        for source in recipe.dataset.sources.values()
        if not source.regularization
    ]
    return ", ".join(dict.fromkeys(tag for tag in (*classes[:1], *kept) if tag))


def _triggers(recipe: Recipe) -> list[str]:
    """Return the trigger words of release and dataset."""
    own = [source.trigger for source in recipe.dataset.sources.values() if not source.regularization]
    return [*recipe.triggers(), *own]
