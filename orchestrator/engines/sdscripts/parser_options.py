"""Options of sd-scripts' programs, and checks of values for them.

The pinned release's options ship as ``pinned.json``; those of another commit are kept in the user's cache.
"""

from __future__ import annotations

import contextlib
import functools
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.engines.sdscripts import checkout
from orchestrator.engines.sdscripts.parser_source import Options, ParserOption, parse_options
from orchestrator.errors import near_miss
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.models.renderer import GEN_IMG
from orchestrator.recipe import trainer_names
from orchestrator.system import files, settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.recipe.base import Conflict

RENDERERS = tuple(
    dict.fromkeys(entry.renderer.script for entry in ARCHITECTURES.values() if entry.renderer.script != GEN_IMG.script)
)
TRAINERS = tuple(dict.fromkeys(entry.trainer_script for entry in ARCHITECTURES.values()))
SCRIPTS = (*TRAINERS, GEN_IMG.script, *RENDERERS, "networks/resize_lora.py", "networks/svd_merge_lora.py")
_SHIPPED = Path(__file__).with_name("pinned.json")


def of(script: str, folder: Path | None = None) -> Options:
    """Return the options of a script.

    The pinned commit's options, also used without a checkout, ship with this project.
    """
    folder = folder or settings.sd_scripts()
    return _of(script, folder, checkout.version(folder))


@functools.lru_cache(maxsize=32)
def _of(script: str, folder: Path, version: str) -> Options:
    if version == checkout.PINNED and (script in _tables(_SHIPPED) or not checkout.present(folder)):
        return _read(_SHIPPED, script)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return _read(_cache_file(version), script)
    return parse_options(folder, script)


@functools.cache
def _tables(path: Path) -> dict[str, list[dict[str, Any]]]:
    tables: dict[str, list[dict[str, Any]]] = json.loads(path.read_text("utf-8"))
    return tables


def _read(path: Path, script: str) -> Options:
    table = _tables(path)[script]
    return {row["name"]: ParserOption(**{**row, "choices": tuple(row.get("choices", ()))}) for row in table}


def has(script: str) -> bool:
    """Return whether the checkout has a script with readable options."""
    try:
        return bool(of(script))
    except (OSError, SyntaxError, KeyError):
        return False


def _cache_file(version: str) -> Path:
    return settings.cache_folder() / f"options-{version.replace(' ', '-')}.json"


def cache_options(folder: Path) -> None:
    """Cache the options of an unmodified checkout of another commit.

    Its source is parsed once.
    """
    version = checkout.version(folder)
    if version == checkout.PINNED or " " in version or not checkout.present(folder) or _cache_file(version).exists():
        return
    with contextlib.suppress(OSError):
        _cache_file(version).parent.mkdir(parents=True, exist_ok=True)
        files.write_text(_cache_file(version), dumps(folder))


def dumps(folder: Path) -> str:
    """Return the options of all scripts in the form of ``pinned.json``.

    It is JSON without default values.
    """
    plain = asdict(ParserOption(""))
    table = {
        script: [
            {key: value for key, value in asdict(option).items() if key == "name" or value != plain[key]}
            for option in parse_options(folder, script).values()
        ]
        for script in SCRIPTS
    }
    rows = (
        f" {json.dumps(script)}: [\n" + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n ]"
        for script, rows in table.items()
    )
    return "{\n" + ",\n".join(rows) + "\n}\n"


def problems(  # noqa: PLR0917 - a program, its names and its values
    options: Mapping[str, ParserOption],
    values: Mapping[str, Any],
    prefix: str,
    owned: Mapping[str, str],
    program: str = "this program",
    elsewhere: Mapping[str, str] = {},
) -> Iterable[Conflict]:
    """Yield (dotted key, problem) for the further options of a recipe.

    Args:
        options: the program's options.
        values: name -> value from the recipe.
        prefix: their table in the recipe, ``training.options``.
        owned: options with a recipe key of their own: name -> that key (empty: set by the orchestrator).
        program: its name in messages.
        elsewhere: options of another program only: name -> that program.
    """
    for name, value in values.items():
        where = f"{prefix}.{name}"
        option = options.get(name)
        if name in owned:
            yield where, f"set {owned[name]} instead" if owned[name] else "is set by the orchestrator"
        elif option is None and (key := trainer_names.recipe_key(name)) and key != where:
            yield where, f"set {key} instead"
        elif option is None and name in elsewhere:
            yield where, f"is an option of {elsewhere[name]}; {program} lacks it"
        elif option is None:
            yield where, f"is not an option of {program}{near_miss(name, options)}"
        elif isinstance(value, tuple) != option.many:
            yield where, "takes a list" if option.many else "takes one value"
        else:
            for item in value if isinstance(value, tuple) else (value,):
                if rule := _mismatch(option, item):
                    yield where, f"is {json.dumps(item)}; {rule}"


def _mismatch(option: ParserOption, value: Any) -> str:
    """Return the rule that a value breaks, or "" if it fits."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits, words = {
        "switch": (isinstance(value, bool), "true or false"),
        "int": (isinstance(value, int) and number, "a whole number"),
        "float": (number, "a number"),
        "int_or_float": (number or isinstance(value, str), "a number"),
        "str": (isinstance(value, str), "text"),
    }[option.type]
    if not fits:
        return f"takes {words}"
    if option.choices and value not in option.choices:
        return f"takes {', '.join(str(choice) for choice in option.choices if choice is not None)}"
    return ""
