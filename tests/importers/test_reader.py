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


def test_names_count_down_to_the_third_level(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("[general_args.args]\nmax_train_steps = 9\n", "utf-8")
    assert to_recipe.recipe(reader.read(str(path))[0]).table["training"]["steps"] == 9
    path.write_text("[general_args.more.args]\nmax_train_steps = 9\n", "utf-8")
    with pytest.raises(RecipeError, match="holds no setting of sd-scripts, LoRA_Easy"):
        reader.read(str(path))


@pytest.mark.parametrize(
    ("name", "data", "message", "hint"),
    [
        ("gone.toml", None, "no such file", "import reads a kohya_ss JSON"),
        ("x.bat", b"\x81", "is neither UTF-8, UTF-16 nor Shift-JIS text", "save it as UTF-8"),
        ("x.json", b"[1, 2]", "holds no settings", "a table of names and values was expected"),
        ("x.json", b"{", "cannot be read: ", "repair it, or export it again"),
        ("x.toml", b"=", "cannot be read: ", "repair it, or export it again"),
        ("x.json", b" " * ((4 << 20) + 1), "is larger than 4 MiB", ""),
        ("x.json", b"{" + b" " * ((4 << 20) - 1), "cannot be read: ", "repair it"),  # a file of 4 MiB is read
        ("x.sh", b"echo", "holds neither a command", "other settings end in .json, .toml or .safetensors"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_a_hint(
    tmp_path: Path, name: str, data: bytes | None, message: str, hint: str
) -> None:
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(RecipeError) as error:
        reader.read(str(path))
    (problem,) = error.value.problems
    assert problem.where == str(path)
    assert problem.what.startswith(message)
    assert problem.hint.startswith(hint)


def test_texts_in_every_encoding_of_batch_files_are_read(tmp_path: Path) -> None:
    text = '{"LoRA_type": "Standard", "output_name": "\u732b"}'
    for encoding in ("utf-8", "utf-8-sig", "cp932"):
        (tmp_path / "x.JSON").write_bytes(text.encode(encoding))
        (settings,) = reader.read(str(tmp_path / "x.JSON"))
        assert (settings.program, settings.name, settings.folder) == ("kohya_ss", "\u732b", tmp_path)


def test_dates_are_texts(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("max_train_steps = 9\nmade = 2024-01-02\n", "utf-8")
    assert reader.read(str(tmp_path / "x.toml"))[0].leaves["made"] == "2024-01-02"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_encodings_and_ends_of_lines(tmp_path: Path, encoding: str, end: str) -> None:
    (tmp_path / "a.json").write_bytes(json.dumps(GUI, indent=1).replace("\n", end).encode(encoding))
    assert to_recipe.recipe(reader.read(str(tmp_path / "a.json"))[0]).name == "cat-lora"
    lines = 'pretrained_model_name_or_path = "m.safetensors"\nnetwork_dim = 8\n'
    (tmp_path / "a.toml").write_bytes(lines.replace("\n", end).encode(encoding))
    assert to_recipe.recipe(reader.read(str(tmp_path / "a.toml"))[0]).table["network"]["dim"] == 8


@pytest.mark.parametrize("name", ["settings.txt", "settings", "settings.toml", "SETTINGS.JSON"])
def test_content_is_read_under_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(json.dumps(GUI), "utf-8")
    assert to_recipe.recipe(reader.read(str(tmp_path / name))[0]).name == "cat-lora"


def test_a_key_that_stands_twice(tmp_path: Path) -> None:
    text = json.dumps(GUI).replace('"network_dim": 32', '"network_dim": 32, "network_dim": 16')
    (tmp_path / "a.json").write_text(text, "utf-8")
    imported = to_recipe.recipe(reader.read(str(tmp_path / "a.json"))[0])
    assert imported.table["network"]["dim"] == 16
    note = next(note for note in imported.notes if note.name == "network_dim (first)")
    assert (str(note.disposition), note.why) == ("lost", "the file has it twice, and the last one counts")


def test_a_folder_and_an_empty_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(" \n", "utf-8")
    with pytest.raises(RecipeError, match="is a folder") as error:
        reader.read(str(tmp_path))
    assert error.value.problems[0].hint == "name one of its files: a.json"
    with pytest.raises(RecipeError, match="is empty"):
        reader.read(str(tmp_path / "a.json"))
