"""Read settings of another program by the reader for the file.

kohya_ss, LoRA_Easy, sd-scripts, CharFramework, or the metadata of a LoRA.
"""

from __future__ import annotations

import codecs
import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestrator.engines.sdscripts import parser_options
from orchestrator.errors import Problem, RecipeError
from orchestrator.importers import (
    charframework,
    command_line,
    kohya_gui,
    kohya_gui_names,
    lora_easy,
    lora_metadata,
    other_programs,
    sd_scripts_toml,
)

if TYPE_CHECKING:
    from orchestrator.importers.notes import ImportedSettings

_ENDINGS: Final = (".json", ".toml", ".bat", ".sh", ".ps1", ".safetensors")
_NAMES: Final = 5  # of files, listed
_OTHERS: Final = "other settings end in .json, .toml or .safetensors"
_MAX_BYTES: Final = 4 << 20  # of a settings file; of a LoRA only the header is read


def read(source: str) -> list[ImportedSettings]:
    """Read settings from a file, or from a LoRA line itself.

    Args:
        source: a kohya_ss JSON, a LoRA_Easy or sd-scripts TOML, a .bat or .sh with training commands or LoRA lines, a LoRA,
            or a LoRA line.

    Raises:
        RecipeError: the file does not exist, or holds no known setting.
    """
    path = Path(source)
    if charframework.is_line(source):
        return charframework.lines(source, source)
    if path.is_dir():
        raise RecipeError(Problem(source, "is a folder", _files_of(path)))
    if not path.is_file():
        readable = "a kohya_ss JSON, a LoRA_Easy or sd-scripts TOML, a .bat or .sh with a training command, or a .safetensors"
        raise RecipeError(Problem(source, "no such file", f"import reads {readable}"))
    ending = path.suffix.lower()
    if ending == ".safetensors":
        return [lora_metadata.read(path)]
    text = _text(path)
    if not text.strip():
        raise RecipeError(Problem(source, "is empty", "save the settings again in the program that they are from"))
    is_json = text.lstrip().startswith("{") or ending == ".json"
    if is_json or ending == ".toml":
        repeated: dict[str, Any] = {}
        table = _table(path, text, repeated, is_json=is_json)
        settings = kohya_gui.read(path.stem, table, path.parent) if is_json else _of_toml(path, table)
        settings.folder = path.parent
        for key, value in repeated.items():
            earlier = f"{key} (first)"
            settings.leaves[earlier] = value
            settings.overridden[earlier] = "the file has it twice, and the last one counts"
        return [settings]
    trainings = charframework.lines(text, path.name) or command_line.read(path, text)
    if not trainings:
        what, hint = "holds neither a command that trains a LoRA nor a `call LoRA …` line", _OTHERS
        if re.search(r"train_network\.py\b", text):
            # read_config_from_file of sd-scripts' library/train_util.py
            what = "starts sd-scripts by a command that import does not find"
            hint = (
                "run it once with --output_config --config_file NAME.toml: it writes its options there; then import NAME.toml"
            )
        else:
            other_programs.refuse_text(source, text)
        raise RecipeError(Problem(source, what, hint))
    return trainings


def _of_toml(path: Path, table: dict[str, Any]) -> ImportedSettings:
    return lora_easy.read(path.stem, table) if lora_easy.is_lora_easy(table) else sd_scripts_toml.read(path, table)


def _files_of(folder: Path) -> str:
    """Return the files of a folder that import can read, as a hint."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS)
    if not files:
        return f"name a file; this folder has none that ends in {', '.join(_ENDINGS)}"
    named = ", ".join(path.name for path in files[:_NAMES])
    return f"name one of its files: {named}" + (" …" if len(files) > _NAMES else "")


def _text(path: Path) -> str:
    data = path.read_bytes()[: _MAX_BYTES + 1]
    if len(data) > _MAX_BYTES:
        raise RecipeError(Problem(str(path), f"is larger than {_MAX_BYTES >> 20} MiB, too large for a settings file"))
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # of PowerShell
    for encoding in ("utf-16",) if wide else ("utf-8-sig", "cp932"):  # batch files of Japanese Windows
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise RecipeError(Problem(str(path), "is neither UTF-8, UTF-16 nor Shift-JIS text", "save it as UTF-8"))


def _table(path: Path, text: str, repeated: dict[str, Any], *, is_json: bool) -> dict[str, Any]:
    """Return the content of a JSON or TOML file. ``repeated`` receives what a later key replaces."""

    def last(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                repeated[key] = result[key]
            result[key] = value
        return result

    try:
        table = json.loads(text, object_pairs_hook=last) if is_json else _plain(tomllib.loads(text))
    except (ValueError, RecursionError) as error:
        raise RecipeError(Problem(str(path), f"cannot be read: {error}", "repair it, or export it again")) from error
    if not isinstance(table, dict):
        raise RecipeError(Problem(str(path), "holds no settings", "a table of names and values was expected"))
    if kohya_gui_names.PAGE.isdisjoint(table):
        other_programs.refuse(str(path), table)
    names = {
        "LoRA_type",
        "datasets",
        "train_type",
        *parser_options.of("train_network.py"),
        *parser_options.of("sdxl_train_network.py"),
    }
    if names.isdisjoint(_names(table)):
        programs = "kohya_ss" if is_json else "sd-scripts, LoRA_Easy_Training_Scripts or lora-scripts"
        hint = (
            "python -m orchestrator import --help  lists the readable files; "
            "python -m orchestrator new  starts from a folder of images"
        )
        raise RecipeError(Problem(str(path), f"holds no setting of {programs}", hint))
    return table


def _plain(table: dict[str, Any]) -> Any:
    """Return a table with dates as texts, as no recipe has dates."""
    return json.loads(json.dumps(table, default=str))


def _names(table: dict[str, Any], depth: int = 3) -> set[str]:
    """Return the keys of a table and of the tables inside it."""
    # LoRA_Easy's options stand two levels below the top.
    inner = [value for value in table.values() if isinstance(value, dict)] if depth > 1 else []
    return set(table).union(*(_names(value, depth - 1) for value in inner))
