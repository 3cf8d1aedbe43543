"""The files of a recipe, found and laid over each other: parents first, left to right, each value with the file that set it.

Parts are looked for in the project, then among those that come with this program. Tables merge, arrays and scalars replace.
``unset = ["a.b"]`` takes an inherited key away again. A profile may hold ``[when.WORD]`` tables: for recipes whose subject,
algorithm, type or name is WORD.
"""

from __future__ import annotations

import functools
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import Problem, near_miss
from orchestrator.system import settings

MAX_BYTES = 1 << 20  # a recipe of a megabyte is not a recipe
MAX_DEPTH = 24
Table = dict[str, Any]


@dataclass(slots=True)
class Reading:
    """What is collected while the files of one recipe are read."""

    root: Path
    problems: list[Problem] = field(default_factory=list)
    merged: Table = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)

    def say(self, where: str | Path, what: str, hint: str = "") -> None:
        """Note a problem."""
        self.problems.append(Problem(str(where), what, hint))


def names(root: Path) -> list[str]:
    """Return the names of all recipes below ``root`` (parts, in folders that begin with ``_``, cannot be run)."""
    return sorted(path.stem for path in root.glob("*.toml"))


def parse(reading: Reading, path: Path) -> Table:
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


def read(reading: Reading, path: Path, trail: tuple[Path, ...] = ()) -> None:
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
        found = _part(reading, parent)
        if not all(_inside(root, parent) for root in _roots(reading.root)):
            reading.say(path, f"extends {parent!r}: parts are files of {reading.root}")
        elif found is None:
            reading.say(path, f"extends {parent!r}: no such part{near_miss(parent, _parts(reading.root))}")
        else:
            read(reading, found, (*trail, path))
    _lay(reading, table, path)


@functools.cache
def library() -> Path:
    """Return the folder of the parts that come with this program: the checkout's recipes, or those that were installed."""
    beside = settings.ROOT / "recipes"
    return beside if beside.is_dir() else Path(sys.prefix) / "share" / "krnk" / "recipes"


def _roots(root: Path) -> tuple[Path, ...]:
    """Return where parts are looked for: the project, then the library, so that a project can have its own."""
    return (root, library()) if library().is_dir() else (root,)


def _part(reading: Reading, name: str) -> Path | None:
    return next((path for each in _roots(reading.root) if (path := each / f"{name}.toml").is_file()), None)


def _parts(root: Path) -> list[str]:
    """Return the names of all parts and recipes that can be extended; of the library only the parts."""
    known = [part.relative_to(root).with_suffix("").as_posix() for part in root.rglob("*.toml")]
    return known + [part.relative_to(library()).with_suffix("").as_posix() for part in library().glob("_*/*.toml")]


def overlay(reading: Reading, profile: str) -> None:
    """Lay a profile over what was read, its ``when`` tables last."""
    path = _part(reading, f"_profiles/{profile}")
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


def _strings(reading: Reading, path: Path, table: Table, key: str) -> list[str]:
    """Take ``key`` out of ``table`` as a list of strings."""
    value = table.pop(key, [])
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        reading.say(path, f"{key}: takes an array of strings")
        return []
    return value


def _lay(reading: Reading, table: Table, path: Path) -> None:
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
