"""Options of sd-scripts that keys of [training] set, one to one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.models.registry import ARCHITECTURES
from orchestrator.recipe import trainer_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestrator.engines.sdscripts.parser_source import ParserOption
    from orchestrator.recipe import Option, Recipe
    from orchestrator.recipe.base import Conflict

CACHE = "cache_text_encoder_outputs"


def of(recipe: Recipe) -> dict[str, Option]:
    """Return the options that the recipe's typed keys set, by name."""
    training, entry = recipe.training, ARCHITECTURES[recipe.base.architecture]
    values: dict[str, Option | None] = {name: getattr(training, name) for name in trainer_names.PLAIN}
    values[entry.flow_shift or "discrete_flow_shift"] = training.flow_shift
    values[CACHE] = training.cache_text_encoder_outputs != "no"
    values[f"{CACHE}_to_disk"] = training.cache_text_encoder_outputs == "disk"
    return {name: value for name, value in values.items() if value is not None and value is not False}


def everything(recipe: Recipe) -> dict[str, tuple[str, Option]]:
    """Return key and value of each option, typed or in training.options."""
    typed = {name: (trainer_names.OWNED[name], value) for name, value in of(recipe).items()}
    return typed | {name: (f"training.options.{name}", value) for name, value in recipe.training.options.items()}


def problems(recipe: Recipe, options: Mapping[str, ParserOption], program: str) -> Iterator[Conflict]:
    """Yield (dotted key, problem) of typed keys without an option.

    Args:
        recipe: the recipe.
        options: the program's options.
        program: its name in messages.
    """
    for name, value in of(recipe).items():
        key = trainer_names.OWNED[name]
        option = options.get(name)
        if option is None:
            yield key, f"{program} has no such option; leave it out"
        elif option.choices and value not in option.choices:
            yield key, f'is "{value}"; {program} takes {", ".join(str(choice) for choice in option.choices)}'
