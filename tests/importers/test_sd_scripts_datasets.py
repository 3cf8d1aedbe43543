"""Folders of kohya's trainers as sources."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from import_cases import GUI, dispositions, loaded
from orchestrator.importers import reader, to_recipe

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_folders_of_kohya_give_trigger_and_class_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("img/10_mycat cat", "reg/1_cat"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "0.png").write_bytes(b"x")
    (tmp_path / "a.json").write_text(json.dumps({**GUI, "train_data_dir": "img", "reg_data_dir": "reg"}), "utf-8")
    imported = to_recipe.recipe(reader.read("a.json")[0])
    sources = loaded(imported, tmp_path).dataset.sources
    assert (sources["mycat"].images, sources["mycat"].trigger, sources["mycat"].class_tokens) == ("img", "mycat", "mycat cat")
    assert (sources["reg"].trigger, sources["reg"].class_tokens, sources["reg"].regularization) == ("", "cat", True)
    assert "trigger" not in dispositions(imported)


def test_missing_folders_of_kohya_use_the_name_of_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(GUI), "utf-8")
    imported = to_recipe.recipe(reader.read(str(tmp_path / "a.json"))[0])
    source = loaded(imported, tmp_path).dataset.sources["img"]
    assert (source.trigger, source.class_tokens) == ("cat", "")  # of "cat lora"; not the folder's "img"
    assert dispositions(imported)["trigger"] == "changed"
