"""Files that are not settings, and the verb ``import``."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from command_line import call
from import_cases import GUI
from orchestrator.errors import RecipeError
from orchestrator.importers import reader, to_recipe

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2]", '"x"', '{"LoRA_type": 3, "network_args": 4, "max_resolution": [], "seed": {}}']
)
def test_strange_files_never_crash(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, "utf-8")
    try:
        imported = to_recipe.recipe(reader.read(str(path))[0])
    except RecipeError as error:
        assert error.problems  # noqa: PT017 - either is right: a recipe, or what is wrong
    else:
        assert imported.table["network"]["family"] == "lora"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.json", '{"a": 1}'),
        ("x.json", "{}"),
        ("x.toml", "a = 1\n"),
        ("x.toml", 'extends = ["_base/face"]\n[network]\ndim = 1\n'),
    ],
)
def test_a_file_without_a_known_setting_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(text, "utf-8")
    assert call(monkeypatch, "import", name) == 2
    output = capsys.readouterr().err
    assert f"{name}\n    holds no setting of " in output
    assert "python -m orchestrator import --help" in output
    assert not (tmp_path / "recipes").exists()


def test_the_verb_writes_reports_and_never_overwrites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.json").write_text(json.dumps(GUI), "utf-8")
    assert call(monkeypatch, "import", "settings.json", "--name", "mimi") == 0
    output = capsys.readouterr().out
    assert re.search("  lost     .*\n(?: {11}.*\n)*.*stop_text_encoder_training", output)
    assert len(output.splitlines()) <= 26  # with the lines about the file
    assert max(map(len, output.splitlines())) < 120
    assert (tmp_path / "recipes" / "mimi.toml").is_file()
    assert call(monkeypatch, "import", "settings.json", "--name", "mimi3", "--all") == 0
    output = capsys.readouterr().out
    assert "kept     network_dim -> network.dim" in output
    assert sum(line.startswith(("  kept ", "  changed ", "  lost ")) for line in output.splitlines()) >= len(GUI)
    assert call(monkeypatch, "import", "settings.json", "--name", "mimi") == 2
    assert "exists already" in capsys.readouterr().err
    assert call(monkeypatch, "import", "settings.json", "--name", "mimi2", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["recipes"][0]["name"] == "mimi2"


def test_a_command_that_is_not_found_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.bat"
    path.write_text("subprocess.run([python, 'sdxl_train_network.py'])\n", "utf-8")
    with pytest.raises(RecipeError, match="starts sd-scripts by a command that") as caught:
        reader.read(str(path))
    assert "--output_config --config_file" in str(caught.value)
