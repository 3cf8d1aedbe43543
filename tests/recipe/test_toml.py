"""Recipes as TOML, and the schema for editors."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from command_line import call
from orchestrator.recipe import loader, schema, toml

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

VALUES = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=6), inner, max_size=3),
    max_leaves=8,
)


def test_the_schema_line_points_at_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "_base" / "x.toml"
    assert toml.with_schema("a = 1\n", path) == "a = 1\n"
    (tmp_path / schema.FILE).write_text("{}", "utf-8")
    assert toml.with_schema("a = 1\n", path) == f"#:schema ../{schema.FILE}\na = 1\n"
    assert toml.with_schema("a = 1\n", tmp_path / "x.toml") == f"#:schema {schema.FILE}\na = 1\n"


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8), VALUES, max_size=5))
def test_written_toml_reads_back(table: dict[str, object]) -> None:
    text = "\n".join(toml.lines(table)) + "\n"
    assert tomllib.loads(text) == table


def test_every_recipe_here_names_its_schema(project: Path) -> None:
    files = [path for path in (project / "recipes").rglob("*.toml") if "examples" not in path.parts]
    assert len(files) > 30
    texts = {path: path.read_bytes().decode("utf-8") for path in files}
    wrong = [str(path) for path, text in texts.items() if not text.startswith(toml.with_schema("", path))]
    wrong += [str(path) for path, text in texts.items() if "\r" in text or "\t" in text or " \n" in text]
    assert wrong == []


def test_the_schema_beside_the_recipes_is_today_s(project: Path) -> None:
    standing = (project / "recipes" / schema.FILE).read_text("utf-8")
    assert standing == schema.dumps(), "python -m orchestrator schema --write"


def test_every_field_is_described() -> None:
    document = schema.document()
    bare = [
        f"{title}.{name}"
        for title, model in {"Recipe": document, **document["$defs"]}.items()
        for name, field in model.get("properties", {}).items()
        if not field.get("description")
    ]
    assert bare == [], "say it below the field in recipe/, or in schema.toml"


def test_examples_and_words_belong_to_fields() -> None:
    described, examples = schema.descriptions()
    document = schema.document()
    fields = {
        f"{title}.{name}"
        for title, model in {"Recipe": document, **document["$defs"]}.items()
        for name in model.get("properties", {})
    }
    assert set(described) <= fields
    assert set(examples) <= fields


def test_the_schema_has_the_keys_of_the_loader(project: Path) -> None:
    """The schema has every key of every recipe file, but no misspelt one."""
    document = schema.document()

    def unknown(table: dict[str, object], model: dict[str, object], trail: str = "") -> list[str]:
        properties = model.get("properties", {})
        assert isinstance(properties, dict)
        unknown_keys: list[str] = []
        for key, value in table.items():
            if key in properties:
                inner = properties[key]
                for alternative in (inner, *inner.get("anyOf", ())):
                    if isinstance(value, dict) and "$ref" in alternative:
                        unknown_keys += unknown(
                            value, document["$defs"][alternative["$ref"].rpartition("/")[2]], f"{trail}{key}."
                        )
            elif model.get("additionalProperties") is False:
                unknown_keys.append(trail + key)
        return unknown_keys

    for path in sorted((project / "recipes").rglob("*.toml")):
        assert unknown(tomllib.loads(path.read_text("utf-8")), document) == [], path
    assert unknown({"training": {"learning_rat": 1}}, document) == ["training.learning_rat"]


def test_the_schema_verb_prints_json(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    assert call(monkeypatch, "schema") == 0
    assert json.loads(capsys.readouterr().out)["properties"]["extends"]["examples"]


def test_windows_paths_in_recipes(project: Path, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(
        'extends = ["_base/release-2023-03", "_algorithms/loha", "_base/face"]\nsummary = "x"\nsubject = "x"\n'
        "[base]\ncheckpoint = 'models\\base.safetensors'\n[dataset]\nname = 'x'\n[dataset.sources.x]\nimages = 'data\\x'\ntrigger = 'x'\n",  # noqa: E501
        "utf-8",
    )
    recipe = loader.recipe(tmp_path, "x").recipe
    assert recipe.base.checkpoint == "models/base.safetensors"
    assert recipe.dataset.sources["x"].images == "data/x"
