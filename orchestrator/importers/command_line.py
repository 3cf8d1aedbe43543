"""Read the commands of sd-scripts in a batch file or a shell script.

``accelerate launch … flux_train_network.py --network_dim=16 …``, over several lines and with the variables that the file sets.
"""

from __future__ import annotations

import itertools
import re
import shlex
import tomllib
from pathlib import Path, PureWindowsPath
from typing import Any, Final

from orchestrator.engines.sdscripts import parser_options
from orchestrator.errors import Problem, RecipeError
from orchestrator.importers import architectures, sd_scripts_toml
from orchestrator.importers.notes import Disposition, ImportedSettings
from orchestrator.importers.values import plain_number, words_by_option
from orchestrator.models.registry import ARCHITECTURES, DEFAULT

_CONTINUED: Final = re.compile(r"[ \t]*[\^\\`][ \t]*\r?\n\s*")
_COMMENT: Final = re.compile(r"\s*(?:@?rem\b|::|#)", re.IGNORECASE)
_SET: Final = re.compile(r"\s*(?:@?set\s+\"?|export\s+|\$env:|\$)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*", re.IGNORECASE)
_VARIABLE: Final = re.compile(r"%(\w+)%|\$env:(\w+)|\$\{(\w+)\}|\$(\w+)")
_SCRIPT: Final = re.compile(r"(?:\w+_)?train_network\.py")


def read(path: Path, text: str) -> list[ImportedSettings]:
    """Read every training command of a file.

    Raises:
        RecipeError: a command has unclosed quotes, or names a configuration that cannot be read.
    """
    trainings: list[ImportedSettings] = []
    variables: dict[str, str] = {}
    for line in _CONTINUED.sub(" ", text).splitlines():
        if _COMMENT.match(line):
            continue
        filled = _filled(line, variables)
        if (match := _SET.fullmatch(filled)) is not None and " --" not in line:
            variables[match[1].lower()] = match[2].strip("\"'")
        elif "train_network.py" in filled:
            words = _words(path, filled)
            at = next((position for position, word in enumerate(words) if _SCRIPT.fullmatch(_file_name(word))), None)
            if at is not None:
                trainings.append(_training(path, _file_name(words[at]), words[:at], words[at + 1 :]))
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
    table = typed(_options(words), script)
    if isinstance(config := table.pop("config_file", None), str):
        table = _configuration(path, config) | table
    settings = sd_scripts_toml.read(path, table)
    settings.program = trained.program
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


def _words(path: Path, line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.escape, lexer.commenters = True, "", ""  # a backslash divides folders
    try:
        return list(lexer)
    except ValueError as error:
        raise RecipeError(Problem(str(path), f"has a command that cannot be read: {error}", "close its quotes")) from error


def _options(words: list[str]) -> dict[str, list[str]]:
    """Return the words of each option, up to the end of the command."""
    return words_by_option(
        itertools.takewhile(lambda word: word not in ("&", "&&", "|", "||", ";") and not word.startswith((">", "2>")), words)
    )


def _filled(text: str, variables: dict[str, str]) -> str:
    """Return a text with the values of variables that the file sets."""
    return _VARIABLE.sub(lambda match: variables.get(next(filter(None, match.groups())).lower(), match[0]), text)


def _file_name(word: str) -> str:
    return PureWindowsPath(word).name
