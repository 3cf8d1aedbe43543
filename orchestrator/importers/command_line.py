"""Read the commands of sd-scripts in a batch file or a shell script.

``accelerate launch … flux_train_network.py --network_dim=16 …``, over several lines and with the variables that the file sets.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path, PureWindowsPath
from typing import Any, Final

from orchestrator.engines.sdscripts import parser_options
from orchestrator.errors import Problem, RecipeError
from orchestrator.importers import architectures, sd_scripts_toml, shell_text
from orchestrator.importers.notes import Disposition, ImportedSettings
from orchestrator.importers.values import plain_number, words_by_option
from orchestrator.models.registry import ARCHITECTURES, DEFAULT

_SCRIPT: Final = re.compile(r"(?:\w+_)?train_network\.py")


def read(path: Path, text: str) -> list[ImportedSettings]:
    """Read every training command of a file.

    Raises:
        RecipeError: a command has unclosed quotes, or names a configuration that cannot be read.
    """
    trainings: list[ImportedSettings] = []
    try:
        for words in shell_text.commands(text, "train_network.py"):
            at = next((position for position, word in enumerate(words) if _SCRIPT.fullmatch(_file_name(word))), None)
            if at is not None:
                trainings.append(_training(path, _file_name(words[at]), words[:at], words[at + 1 :]))
    except ValueError as error:
        raise RecipeError(Problem(str(path), f"has a command that cannot be read: {error}", "close its quotes")) from error
    return trainings


def typed(options: dict[str, list[str]], script: str) -> dict[str, Any]:
    """Return the words of options as the values that a script reads."""
    by_name, values = parser_options.of(script), dict[str, Any]()
    for name, given in options.items():
        option = by_name.get(name)
        if option is not None and option.many:
            values[name] = [plain_number(word) if option.type != "str" else word for word in given]
        elif not given:
            values[name] = True
        elif len(given) > 1:
            values[name] = given  # which no such option takes
        else:
            values[name] = given[0] if option is not None and option.type == "str" else plain_number(given[0])
    return values


def _training(path: Path, script: str, launcher: list[str], words: list[str]) -> ImportedSettings:
    trained = ImportedSettings(path.stem, f"a command of {script}")
    if script != ARCHITECTURES[DEFAULT].trainer_script:
        architectures.named(trained, script.removesuffix("_train_network.py"), script)
    table = typed(_options(_known(trained, words, script)), script)
    if isinstance(config := table.pop("config_file", None), str):
        table = _configuration(path, config) | table
    settings = sd_scripts_toml.read(path, table)
    settings.program, settings.notes = trained.program, [*settings.notes, *trained.notes]
    settings.extra = {"architecture": DEFAULT} | settings.extra | trained.extra
    for name in _options(launcher):
        why = "an option of accelerate: a recipe runs one process on each GPU"
        settings.note(Disposition.LOST, f"launch --{name}", why=why)
    return settings


def _configuration(path: Path, config: str) -> dict[str, Any]:
    """Return the content of a command's --config_file, without sections."""
    name = PureWindowsPath(config).as_posix()
    for file in [folder / (name if name.endswith(".toml") else f"{name}.toml") for folder in (path.parent, Path())]:
        if file.is_file():
            try:
                table = tomllib.loads(file.read_text("utf-8"))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise RecipeError(Problem(str(file), f"cannot be read: {error}", "repair it")) from error
            return {key: inner for name, value in table.items() for key, inner in _section(name, value).items()}
    hint = "put it beside this file, or import it by itself"
    raise RecipeError(Problem(str(path), f"its command reads {config}, which does not exist here", hint))


def _section(name: str, value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {name: value}


def _options(words: list[str]) -> dict[str, list[str]]:
    """Return the words of each option, up to a redirection of output."""
    return words_by_option(itertools.takewhile(lambda word: not word.startswith((">", "2>")), words))


def _known(settings: ImportedSettings, words: list[str], script: str) -> list[str]:
    """Return the words without those that stand for others, and note them."""
    switches = {f"--{name}" for name, option in parser_options.of(script).items() if option.type == "switch"}
    kept: list[str] = []
    for word in words:
        value = kept and kept[-1].startswith("--") and "=" not in kept[-1] and kept[-1] not in switches
        if not value and shell_text.UNKNOWN.fullmatch(word):
            settings.note(Disposition.LOST, word, why="the file does not set it: its options, if any, are missing")
        else:
            kept.append(word)
    return kept


def _file_name(word: str) -> str:
    return PureWindowsPath(word).name
