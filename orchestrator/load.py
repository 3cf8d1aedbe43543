"""How files become one recipe: ``extends``, profile overlays, the origin of every value, all problems at once.

Parts are looked for in the project, then among those that come with this program. Deep merge, parents first, left to
right; tables merge, arrays and scalars replace. ``unset = ["a.b"]`` takes an inherited key away again. A profile may hold
``[when.WORD]`` tables: for recipes whose subject, algorithm, type or name is WORD.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.check import check
from orchestrator.errors import Problem, RecipeError, near_miss
from orchestrator.recipe import Recipe
from orchestrator.wording import drop, partial, wording

MAX_BYTES = 1 << 20  # a recipe of a megabyte is not a recipe
MAX_DEPTH = 24
Table = dict[str, Any]
_PATHS = {
    "base": ("checkpoint", "vae"),
    "network": ("weights",),
    "dataset": ("tagger_model",),
    "release": ("templates",),
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A recipe with the file that set each of its values (``origin[dotted key] = path``)."""

    recipe: Recipe
    path: Path
    origin: dict[str, str]
    merged: Table


@dataclass(slots=True)
class _Reading:
    """What is collected while the files of one recipe are read."""

    root: Path
    problems: list[Problem] = field(default_factory=list)
    merged: Table = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)

    def say(self, where: str | Path, what: str, hint: str = "") -> None:
        self.problems.append(Problem(str(where), what, hint))


def names(root: Path) -> list[str]:
    """Return the names of all recipes below ``root`` (parts, in folders that begin with ``_``, cannot be run)."""
    return sorted(path.stem for path in root.glob("*.toml"))


def recipes(root: Path, wanted: list[str], profile: str = "", engine: str = "") -> list[Loaded]:
    """Load several recipes; ``RecipeError`` with the problems of all of them."""
    loaded: list[Loaded] = []
    problems: list[Problem] = []
    for name in wanted:
        try:
            loaded.append(recipe(root, name, profile, engine))
        except RecipeError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise RecipeError(problems)
    return loaded


def recipe(root: Path, name: str, profile: str = "", engine: str = "") -> Loaded:
    """Load one recipe by name or path, with an optional profile and engine laid over it.

    Args:
        root: the recipes folder.
        name: a recipe's name (``krnk-locon``) or the path of a TOML file.
        profile: name of a file in ``_profiles``.
        engine: replaces the recipe's engine.

    Raises:
        RecipeError: every problem found, each with the file that set the value; nothing was run.
    """
    path = Path(name) if name.endswith(".toml") else root / f"{name}.toml"
    if not path.is_file():
        known = names(root)
        raise RecipeError(
            Problem(str(path), f"no such recipe{near_miss(name, known)}", "python -m orchestrator list  shows the recipes")
        )
    reading = _Reading(root)
    _read(reading, path, ())
    _say_name(reading, path)
    if profile:
        _overlay(reading, profile)
    if engine:
        reading.merged["engine"] = engine
        reading.origin["engine"] = "--engine"
    result, problems = _validate(reading, path)
    if result is None or problems:
        raise RecipeError(problems)
    return Loaded(result, path, reading.origin, reading.merged)


def parse(reading: _Reading, path: Path) -> Table:
    """Read one TOML file; a problem instead of an exception for what cannot be read."""
    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            reading.say(path, f"{len(data)} bytes; a recipe has at most {MAX_BYTES}")
            return {}
        table = _toml(data)
        if _deep(table):
            reading.say(path, f"is nested more than {MAX_DEPTH} deep")
            return {}
        return dict(table)  # what is taken out of a table, `extends`, stands at its top
    except OSError as error:
        reading.say(path, f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        reading.say(path, f"is not UTF-8 (byte {error.start})", "save it as UTF-8")
    except tomllib.TOMLDecodeError as error:
        reading.say(path, f"is not TOML: {error}")
    except RecursionError:
        reading.say(path, "is nested too deeply")
    return {}


def _deep(table: Table) -> bool:
    """Return whether tables or arrays stand more than MAX_DEPTH inside each other (dotted keys need no recursion to parse)."""
    level: list[Any] = [table]
    for _ in range(MAX_DEPTH):
        level = [inner for value in level for inner in (value.values() if isinstance(value, dict) else value)]
        level = [value for value in level if isinstance(value, (dict, list))]
        if not level:
            return False
    return True


@functools.lru_cache(maxsize=256)
def _toml(data: bytes) -> Table:
    """Parse a file's content, once for all recipes that extend it."""
    return tomllib.loads(data.decode("utf-8-sig"))


@functools.lru_cache(maxsize=1024)
def _inside(root: Path, name: str) -> bool:
    """Return whether the part called ``name`` would lie below ``root``."""
    return (root / f"{name}.toml").resolve().is_relative_to(root.resolve())


def _read(reading: _Reading, path: Path, trail: tuple[Path, ...]) -> None:
    """Merge the parents of ``path``, then ``path`` itself."""
    if path in trail:
        circle = " -> ".join(part.stem for part in (*trail[trail.index(path) :], path))
        reading.say(path, f"extends itself: {circle}")
        return
    if len(trail) >= MAX_DEPTH:
        reading.say(path, f"extends more than {MAX_DEPTH} files deep")
        return
    table = parse(reading, path)
    for parent in _strings(reading, path, table, "extends"):
        found = _part(reading.root, parent)
        if not all(_inside(root, parent) for root in _roots(reading.root)):
            reading.say(path, f"extends {parent!r}: parts are files of {reading.root}")
        elif found is None:
            reading.say(path, f"extends {parent!r}: no such part{near_miss(parent, _parts(reading.root))}")
        else:
            _read(reading, found, (*trail, path))
    _lay(reading, table, path)


@functools.cache
def library() -> Path:
    """Return the folder of the parts that come with this program: the checkout's recipes, or those that were installed."""
    beside = Path(__file__).resolve().parent.parent / "recipes"
    return beside if beside.is_dir() else Path(sys.prefix) / "share" / "krnk" / "recipes"


def _roots(root: Path) -> tuple[Path, ...]:
    """Return where parts are looked for: the project, then the library, so that a project can have its own."""
    return (root, library()) if library().is_dir() else (root,)


def _part(root: Path, name: str) -> Path | None:
    return next((path for each in _roots(root) if (path := each / f"{name}.toml").is_file()), None)


def _parts(root: Path) -> list[str]:
    """Return the names of all parts and recipes that can be extended; of the library only the parts."""
    known = [part.relative_to(root).with_suffix("").as_posix() for part in root.rglob("*.toml")]
    return known + [part.relative_to(library()).with_suffix("").as_posix() for part in library().glob("_*/*.toml")]


def _overlay(reading: _Reading, profile: str) -> None:
    """Lay a profile over what was read, its ``when`` tables last."""
    path = _part(reading.root, f"_profiles/{profile}")
    if path is None:
        known = sorted({part.stem for root in _roots(reading.root) for part in root.glob("_profiles/*.toml")})
        path = reading.root / "_profiles" / f"{profile}.toml"
        reading.say(path, f"no such profile{near_miss(profile, known)}", f"profiles here: {', '.join(known) or 'none'}")
        return
    table = parse(reading, path)
    when = table.pop("when", {})
    _lay(reading, table, path)
    words = [reading.merged.get(key) for key in ("type", "algorithm", "subject", "name")]
    if not isinstance(when, dict):
        reading.say(path, "when: takes tables, as [when.loha.training]")
        return
    for word in dict.fromkeys(words):
        extra = when.get(word) if isinstance(word, str) else None
        if isinstance(extra, dict):
            _lay(reading, extra, path)


def _strings(reading: _Reading, path: Path, table: Table, key: str) -> list[str]:
    """Take ``key`` out of ``table`` as a list of strings."""
    value = table.pop(key, [])
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        reading.say(path, f"{key}: takes an array of strings")
        return []
    return value


def _lay(reading: _Reading, table: Table, path: Path) -> None:
    """Take away what ``table`` unsets, then merge it over what is there."""
    for dotted in _strings(reading, path, table, "unset"):
        *above, last = dotted.split(".")
        target: Any = reading.merged
        for part in above:
            target = target.get(part, {}) if isinstance(target, dict) else {}
        if isinstance(target, dict):
            target.pop(last, None)
    _merge(reading.merged, table, (), str(path), reading.origin)


def _merge(into: Table, table: Table, trail: tuple[str, ...], file: str, origin: dict[str, str]) -> None:
    for key, value in table.items():
        where = (*trail, key)
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value, where, file, origin)
        elif isinstance(value, dict):
            into[key] = {}
            origin[".".join(where)] = file
            _merge(into[key], value, where, file, origin)
        else:
            into[key] = value
            origin[".".join(where)] = file


def _say_name(reading: _Reading, path: Path) -> None:
    reading.merged.setdefault("name", path.stem)
    reading.origin.setdefault("name", str(path))


def _validate(reading: _Reading, path: Path) -> tuple[Recipe | None, list[Problem]]:
    """Validate the types, then, with what is wrong taken out, the combinations; return both kinds of problems."""
    problems = list(reading.problems)
    _portable(reading.merged)
    try:
        # Through JSON, because strict Python mode refuses a list where a tuple is meant.
        text = json.dumps(reading.merged)
    except (TypeError, ValueError) as error:
        return None, [
            *problems,
            Problem(str(path), f"holds a value that is no JSON: {error}", "dates and inf are not recipe values"),
        ]
    try:
        result: Recipe | None = Recipe.model_validate_json(text)
    except ValidationError as error:
        result = None
        remaining = json.loads(text)
        for item in error.errors():
            loc = tuple(part for part in item["loc"])
            key, what = wording(reading.merged, loc, item)
            problems.append(Problem(_where(path, key), what, _set_in(reading, path, key)))
            drop(remaining, loc)
        judged = partial(remaining)
    else:
        judged = result
    if judged is not None:
        known = {problem.where for problem in problems}
        for key, what in check(judged):
            where = _where(path, key)
            if where not in known:
                problems.append(Problem(where, what, _set_in(reading, path, key)))
    return result, list(dict.fromkeys(problems))


def _portable(merged: Table) -> None:
    """Turn the backslashes of paths that were written on Windows into what every system reads."""
    if os.sep == "\\":
        return
    found: list[tuple[Any, tuple[str, ...]]] = [(merged.get(table), keys) for table, keys in _PATHS.items()]
    data = merged.get("dataset")
    sources = data.get("sources") if isinstance(data, dict) else None
    found += [(source, ("images",)) for source in (sources.values() if isinstance(sources, dict) else ())]
    for table, keys in found:
        for key in keys:
            if isinstance(table, dict) and isinstance(table.get(key), str):
                table[key] = table[key].replace("\\", "/")


def _where(path: Path, key: str) -> str:
    return f"{path}: {key}"


def _set_in(reading: _Reading, path: Path, key: str) -> str:
    """Return which file set ``key``, or a table above it, unless it is the recipe itself."""
    parts = key.split(".")
    while parts:
        file = reading.origin.get(".".join(parts))
        if file is not None:
            return "" if file == str(path) else f"(set in {file})"
        parts.pop()
    return ""
