"""Shorten an imported recipe: omit values that defaults or a part set.

The shortened table makes the same recipe as the whole one, which is checked by loading both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from orchestrator.recipe import compose, loader, toml

if TYPE_CHECKING:
    from orchestrator.recipe import Recipe

_PARTS: Final = "_algorithms"
_STATED: Final = {
    *(("base", "architecture"), ("network", "family"), ("network", "dim"), ("network", "alpha")),
    *(("training", "optimizer"), ("training", "learning_rate"), ("training", "steps"), ("training", "epochs")),
}
"""Keys that stand in every imported recipe, as a reader looks for them."""


def shortened(name: str, table: dict[str, Any]) -> dict[str, Any]:
    """Return the shortest table that makes the same recipe.

    Args:
        name: of the recipe.
        table: the whole recipe. If it extends parts already, it is returned as it is.
    """
    recipe = _recipe(name, table)
    if recipe is None or "extends" in table:
        return table
    own = _without_defaults(table, recipe.model_dump(mode="json", exclude_defaults=True), ())
    parts = sorted(path.stem for path in (loader.library() / _PARTS).glob("*.toml"))
    candidates = [table, own, *(_over(f"{_PARTS}/{part}", table, own) for part in parts)]
    same = [made for made in candidates if _recipe(name, made) == recipe]
    return min(same, key=lambda made: (len(toml.lines(made)), len(made.get("unset", ()))))


def _recipe(name: str, table: dict[str, Any]) -> Recipe | None:
    return loader.of_table(loader.library(), name, table)[0]


def _without_defaults(table: dict[str, Any], changed: dict[str, Any], trail: tuple[str, ...]) -> dict[str, Any]:
    """Return the values of a table that differ from the defaults."""
    kept: dict[str, Any] = {}
    for key, value in table.items():
        where = (*trail, key)
        if where in _STATED or not isinstance(value, dict):
            kept |= {key: value} if where in _STATED or key in changed else {}
        elif key in changed and (inner := _without_defaults(value, changed[key], where)):
            kept[key] = inner
    return kept


def _over(part: str, whole: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return a table that extends a part and holds the differences only.

    Args:
        part: to extend.
        whole: every value of the recipe.
        own: those that are no defaults.
    """
    composition = compose.Composition(loader.library())
    compose.merge(composition, {"extends": [part]}, loader.library() / "imported.toml")
    differing, removed = _difference(whole, own, composition.merged, ())
    summary = {"summary": differing.pop("summary", "")}
    unset = {"unset": removed} if removed else {}
    return {**summary, "extends": [part], **unset, **differing}


def _difference(
    whole: dict[str, Any], own: dict[str, Any], merged: dict[str, Any], trail: tuple[str, ...]
) -> tuple[dict[str, Any], list[str]]:
    """Return the values that differ, and dotted keys that the recipe lacks."""
    differing: dict[str, Any] = {}
    removed = [".".join((*trail, key)) for key in merged if key not in whole]
    for key, value in whole.items():
        if key not in merged or (*trail, key) in _STATED:
            differing |= {key: own[key]} if key in own else {}
        elif isinstance(value, dict) and isinstance(merged[key], dict):
            inner, more = _difference(value, own.get(key, {}), merged[key], (*trail, key))
            differing |= {key: inner} if inner else {}
            removed += more
        elif value != merged[key]:
            differing[key] = value
    return differing, removed
