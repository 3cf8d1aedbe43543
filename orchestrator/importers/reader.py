"""Read settings of another program by the reader for the file.

kohya_ss, LoRA_Easy, sd-scripts, CharFramework, or the metadata of a LoRA.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestrator.engines.sdscripts import parser_options
from orchestrator.errors import Problem, RecipeError
from orchestrator.importers import charframework, command_line, kohya_gui, lora_easy, lora_metadata, sd_scripts_toml

if TYPE_CHECKING:
    from orchestrator.importers.notes import ImportedSettings

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
    if not path.is_file():
        readable = "a kohya_ss JSON, a LoRA_Easy or sd-scripts TOML, a .bat or .sh with a training command, or a .safetensors"
        raise RecipeError(Problem(source, "no such file", f"import reads {readable}"))
    ending = path.suffix.lower()
    if ending == ".safetensors":
        return [lora_metadata.read(path)]
    text = _text(path)
    if ending in (".json", ".toml"):
        settings = _settings(path, _table(path, text))
        settings.folder = path.parent
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
        raise RecipeError(Problem(source, what, hint))
    return trainings


def _settings(path: Path, table: dict[str, Any]) -> ImportedSettings:
    if path.suffix.lower() == ".json":
        return kohya_gui.read(path.stem, table, path.parent)
    return lora_easy.read(path.stem, table) if lora_easy.is_lora_easy(table) else sd_scripts_toml.read(path, table)


def _text(path: Path) -> str:
    data = path.read_bytes()[: _MAX_BYTES + 1]
    if len(data) > _MAX_BYTES:
        raise RecipeError(Problem(str(path), f"is larger than {_MAX_BYTES >> 20} MiB, too large for a settings file"))
    for encoding in ("utf-8-sig", "cp932"):  # batch files of Japanese Windows
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise RecipeError(Problem(str(path), "is neither UTF-8 nor Shift-JIS text", "save it as UTF-8"))


def _table(path: Path, text: str) -> dict[str, Any]:
    try:
        table = json.loads(text) if path.suffix.lower() == ".json" else _plain(tomllib.loads(text))
    except (ValueError, RecursionError) as error:
        raise RecipeError(Problem(str(path), f"cannot be read: {error}", "repair it, or export it again")) from error
    if not isinstance(table, dict):
        raise RecipeError(Problem(str(path), "holds no settings", "a table of names and values was expected"))
    names = {"LoRA_type", "datasets", *parser_options.of("train_network.py"), *parser_options.of("sdxl_train_network.py")}
    if names.isdisjoint(_names(table)):
        programs = "kohya_ss" if path.suffix.lower() == ".json" else "sd-scripts or LoRA_Easy_Training_Scripts"
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
