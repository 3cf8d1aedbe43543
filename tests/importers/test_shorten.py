"""Imported recipes are short, and mean the same as the whole table."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from import_cases import GUI
from orchestrator.importers import kohya_gui, shorten, to_recipe
from orchestrator.recipe import loader


def _loaded(name: str, table: dict[str, Any]) -> Any:
    recipe, problems = loader.of_table(loader.library(), name, table)
    assert not problems
    return recipe


@pytest.mark.parametrize("changes", [{}, {"LoRA_type": "Standard"}, {"LoRA_type": "LyCORIS/LoKr", "use_cp": False}])
def test_written_recipes_mean_the_whole_table_in_fewer_lines(changes: dict[str, Any]) -> None:
    imported = to_recipe.recipe(kohya_gui.read("cat", GUI | changes, Path()))
    written = tomllib.loads(imported.text())
    assert _loaded(imported.name, written) == _loaded(imported.name, imported.table)
    assert "enable_bucket" in imported.table["dataset"]  # true: a default of recipes
    assert "enable_bucket" not in written["dataset"]
    for above, key in (("network", "dim"), ("training", "steps"), ("training", "learning_rate"), ("base", "architecture")):
        assert written[above][key] == imported.table[above][key]


def test_values_of_a_part_are_not_repeated() -> None:
    """The settings of the release's LoCon are those of its part."""
    part, _ = loader.of_table(loader.library(), "x", _TABLE | {"extends": ["_algorithms/locon"]})
    assert part is not None
    network = part.network.model_dump(mode="json", exclude_defaults=True)
    short = shorten.shortened("x", {**_TABLE, "algorithm": "locon", "network": network})
    assert short["extends"] == ["_algorithms/locon"]
    assert set(short["network"]) == {"family", "dim", "alpha"}  # always stated
    assert "algorithm" not in short
    assert _loaded("x", short) == part


def test_values_that_a_part_sets_beside_are_unset() -> None:
    network = {"family": "locon", "dim": 128, "alpha": 64.0, "conv_dim": 128, "conv_alpha": 64.0}
    table = {**_TABLE, "algorithm": "locon", "network": network}
    short = shorten.shortened("x", table)
    assert _loaded("x", short) == _loaded("x", table)
    assert "bypass" not in str(short) or "network.bypass" in short["unset"]


def test_defaults_that_a_part_states_are_not_unset() -> None:
    """The part's preset has values that are the defaults; the recipe's, too."""
    part, _ = loader.of_table(loader.library(), "x", _TABLE | {"extends": ["_algorithms/loha"]})
    assert part is not None
    network = part.network.model_dump(mode="json")
    short = shorten.shortened("x", {**_TABLE, "algorithm": "loha", "network": network | {"tucker": False}})
    assert short["extends"] == ["_algorithms/loha"]
    assert "unset" not in short
    assert short["network"] == {"family": "loha", "dim": 32, "alpha": 16, "tucker": False}


def test_recipes_that_extend_parts_stay() -> None:
    table = _TABLE | {"extends": ["_algorithms/locon"]}
    assert shorten.shortened("x", table) is table


_TABLE: dict[str, Any] = {
    "summary": "x", "subject": "x", "engine": "sd-scripts",
    "base": {"architecture": "sd1", "checkpoint": "x.safetensors"},
    "dataset": {"name": "x", "sources": {"a": {"images": "a"}}},
    "training": {"steps": 100, "optimizer": "AdamW", "seed": 1, "learning_rate": 0.0001},
}  # fmt: skip
