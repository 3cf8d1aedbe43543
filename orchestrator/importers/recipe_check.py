"""Check an imported recipe, and leave out the settings in its way.

The checks are those of the next command: the recipe's own, and its engine's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from orchestrator import engines
from orchestrator.errors import Problem, RecipeError
from orchestrator.importers.notes import Disposition, ImportedSettings
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.recipe import limits, loader
from orchestrator.recipe.messages import required

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEY: Final = re.compile(r"\b(?:base|dataset|network|render|training)(?:\.[a-z_]+)+")
_NEEDED_BY: Final = {
    "training.options.lr_scheduler_type": "training.options.lr_scheduler_args",
    "training.lr_scheduler": "training.options.lr_scheduler_args",
    "training.optimizer": "training.optimizer_args",
}
_RATES: Final = ("learning_rate", "text_encoder_lr", "unet_lr")
_USUAL_RATE: Final = 1e-4
_HIGHEST: Final = 0.01  # a rate above it is a factor, for an optimizer that finds its own
_ESSENTIAL: Final = {("base", "architecture")}  # without it, the recipe would be of another model
_OPTIONAL: Final = {("network", "args"), ("training", "options"), ("training", "optimizer_args")}


def make_acceptable(settings: ImportedSettings, name: str, table: dict[str, Any]) -> None:
    """Leave out settings until every check accepts the recipe.

    One at a time, because a setting without another can be the next problem, or none. A note says which, and the reason.

    Args:
        settings: receives the notes.
        name: of the recipe.
        table: the recipe; settings are removed from it.

    Raises:
        RecipeError: what stands in the way cannot be left out.
    """
    while found := problems(name, table):
        if any(_replaced(settings, table, key, what) for key, what in found):
            continue
        # The other key of a pair, where the first has its default.
        others = [(other, f"{key} {what}") for key, what in found for other in _KEY.findall(what)]
        prompts = [("render", f"{key} {what}") for key, what in found if key.startswith("render.")]
        removed = next((one for one in (_remove(table, key, what) for key, what in [*found, *others, *prompts]) if one), None)
        if removed is None:
            hint = "change it in the file, or start from  python -m orchestrator new"
            raise RecipeError([Problem(f"{settings.name}: {key}", what, hint) for key, what in found])
        key, what = removed
        _note(settings, key, what)
        _without_dependents(settings, table, key, what)


def _replaced(settings: ImportedSettings, table: dict[str, Any], key: str, what: str) -> bool:
    """Replace a value that a recipe needs. False if it has no stand-in, or is one already."""
    above, _, last = key.rpartition(".")
    inside, stand_in = table.get(above, {}), _stand_in(table, key)
    value = inside.get(last)
    if stand_in is None or value == stand_in or (value is None and above != "render"):
        return False
    inside[last] = stand_in
    if value is not None:
        _note(settings, key, f"{what}; {stand_in} stands in")
    rates = [name for name in _RATES if isinstance(inside.get(name), int | float) and inside[name] > _HIGHEST]
    if last == "optimizer":
        if rates:
            inside |= dict.fromkeys(rates, _USUAL_RATE)
            for name in rates:
                why = f"it was a factor for the optimizer, which is lost; {_USUAL_RATE} for {inside[last]}"
                settings.note(Disposition.CHANGED, name, f"training.{name}", why)
        _without_dependents(settings, table, key, what)
    return True


def _stand_in(table: dict[str, Any], key: str) -> Any:
    """Return the value that replaces one of a key, or None."""
    renderer = ARCHITECTURES[table["base"]["architecture"]].renderer if key.startswith("render.") else None
    if renderer is None:
        optimizer = str(table.get("training", {}).get("optimizer", ""))
        rate = 1.0 if limits.finds_rate(optimizer) else _USUAL_RATE
        return {"training.optimizer": "AdamW", "training.learning_rate": rate}.get(key)
    usual = {
        "sampler": (*renderer.samplers, None)[0],
        "precision": (*renderer.precisions, None)[0],
        "batch_size": 1,
        "scale": 1,
    }
    return usual.get(key.removeprefix("render."))


def _without_dependents(settings: ImportedSettings, table: dict[str, Any], key: str, what: str) -> None:
    """Leave out the setting that means something only beside a lost one."""
    dependent = _NEEDED_BY.get(key, "")
    if dependent and _remove(table, dependent, what):
        _note(settings, dependent, f"without {key} it would mean something else")


def _note(settings: ImportedSettings, key: str, what: str) -> None:
    for setting in _settings_of(settings, key) or [key]:
        settings.note(Disposition.LOST, setting, key, what)


def problems(name: str, table: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (dotted key, problem) of a recipe in no file yet."""
    recipe, found = loader.of_table(loader.library(), name, table)
    if recipe is not None and not found:
        found = engines.get(recipe.engine).check(recipe)
    return [(problem.where.partition(": ")[2], problem.what) for problem in found]


def _remove(table: dict[str, Any], key: str, what: str) -> tuple[str, str] | None:
    """Remove a key from a table, and return it with its problem.

    None if it is not there, or a recipe needs it.
    """
    words = key.split(".")
    inside = table
    for index, word in enumerate(words):
        if word not in inside:
            return None
        if index == len(words) - 1 or not isinstance(inside[word], dict):
            path = tuple(words[: index + 1])
            if required(path) or path in _ESSENTIAL:
                return None
            del inside[word]
            if not inside and path[:-1] in _OPTIONAL:
                _remove(table, ".".join(path[:-1]), what)
            return ".".join(path), what
        inside = inside[word]
    return None


def _settings_of(settings: ImportedSettings, key: str) -> list[str]:
    """Return the settings that a note locates at a key or below it."""
    return list(dict.fromkeys(_names(settings, key)))


def _names(settings: ImportedSettings, key: str) -> Iterator[str]:
    for note in settings.notes:
        if note.where == key or note.where.startswith(f"{key}."):
            yield note.name
