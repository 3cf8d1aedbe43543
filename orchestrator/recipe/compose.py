"""Compose a recipe: parents first, left to right, then profiles.

Parts are files of the project or of this program, in this order. Tables merge, arrays and scalars replace, and each value is
kept with the file that set it. ``unset = ["a.b"]`` removes an inherited key. A profile may have ``[when.WORD]`` tables for
recipes whose subject, algorithm, type or name is WORD.
"""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem, near_miss
from orchestrator.system import settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_BYTES = 1 << 20  # a recipe of a megabyte is not a recipe
MAX_DEPTH = 24
PROGRAM = "program:"  # before a path of images that come with the program
TomlTable = dict[str, Any]
_TOML_HINTS = {
    "Cannot overwrite a value": "a key stands twice in one table; leave one of them",
    "Cannot declare": "a table has two headings; put its keys below one of them",
    "Unescaped": "write / between folders, or quote the path by '…'",
    "Invalid hex value": "write / between folders, or quote the path by '…'",
}
"""Hint for a message of tomllib with these words."""


@dataclass(slots=True)
class Composition:
    """A recipe while its files are merged, with the problems so far."""

    root: Path
    problems: list[Problem] = field(default_factory=list)
    merged: TomlTable = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    meant: set[str] = field(default_factory=set)
    """Keys that a profile sets for this recipe or its subject by name."""

    def add_problem(self, where: str | Path, message: str, hint: str = "") -> None:
        """Add a problem."""
        self.problems.append(Problem(str(where), message, hint))


def names(root: Path) -> list[str]:
    """Return the names of all recipes below ``root``."""
    return sorted(path.stem for path in root.glob("*.toml"))


def parse(composition: Composition, path: Path) -> TomlTable:
    """Read one TOML file. A file that cannot be read becomes a problem."""
    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            composition.add_problem(path, f"{len(data)} bytes; a recipe has at most {MAX_BYTES}")
            return {}
        table = _toml(data)
        if _deep(table):
            composition.add_problem(path, f"is nested more than {MAX_DEPTH} deep")
            return {}
        return dict(table)  # a copy: _strings removes keys at the top of a table
    except OSError as error:
        composition.add_problem(path, f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        composition.add_problem(path, f"is not UTF-8 (byte {error.start})", "save it as UTF-8")
    except tomllib.TOMLDecodeError as error:
        hint = next((hint for words, hint in _TOML_HINTS.items() if words in str(error)), "")
        composition.add_problem(path, f"is not TOML: {error}", hint)
    except RecursionError:
        composition.add_problem(path, "is nested too deeply")
    return {}


def _deep(table: TomlTable) -> bool:
    """Return whether tables or arrays are nested deeper than MAX_DEPTH.

    Dotted keys can do so without recursion in the parser.
    """
    level: list[Any] = [table]
    for _ in range(MAX_DEPTH):
        level = [inner for value in level for inner in (value.values() if isinstance(value, dict) else value)]
        level = [value for value in level if isinstance(value, (dict, list))]
        if not level:
            return False
    return True


@functools.lru_cache(maxsize=256)
def _toml(data: bytes) -> TomlTable:
    """Parse the content of a file, once for all recipes that extend it."""
    return tomllib.loads(data.decode("utf-8-sig"))


@functools.lru_cache(maxsize=1024)
def _inside(root: Path, name: str) -> bool:
    """Return whether a part of that name is below ``root``."""
    return (root / f"{name}.toml").resolve().is_relative_to(root.resolve())


def read(composition: Composition, path: Path, trail: tuple[Path, ...] = ()) -> None:
    """Merge the parents of a file, then the file."""
    if path in trail:
        circle = " -> ".join(file.stem for file in (*trail[trail.index(path) :], path))
        composition.add_problem(path, f"extends itself: {circle}")
        return
    if len(trail) >= MAX_DEPTH:
        composition.add_problem(path, f"extends more than {MAX_DEPTH} files deep")
        return
    merge(composition, parse(composition, path), path, trail)


def merge(composition: Composition, table: TomlTable, path: Path, trail: tuple[Path, ...] = ()) -> None:
    """Merge the parents of a table, then the table of ``path``."""
    for parent in _strings(composition, path, table, "extends"):
        part = _part(composition, parent)
        if not all(_inside(root, parent) for root in _roots(composition.root)):
            composition.add_problem(path, f"extends {parent!r}: parts are files of {composition.root}")
        elif part is None:
            composition.add_problem(path, f"extends {parent!r}: no such part{near_miss(parent, _parts(composition.root))}")
        else:
            read(composition, part, (*trail, path))
    _apply(composition, table, path)


def library() -> Path:
    """Return the folder of this program's own parts."""
    return settings.program_folder() / "recipes"


def _roots(root: Path) -> tuple[Path, ...]:
    """Return the folders of parts: the project, then the library."""
    return (root, library()) if library().is_dir() else (root,)


def _part(composition: Composition, name: str) -> Path | None:
    return next((path for each in _roots(composition.root) if (path := each / f"{name}.toml").is_file()), None)


def _parts(root: Path) -> list[str]:
    """Return names of the project's files and the library's parts."""
    own = [part.relative_to(root).with_suffix("").as_posix() for part in root.rglob("*.toml")]
    return own + [part.relative_to(library()).with_suffix("").as_posix() for part in library().glob("_*/*.toml")]


def profiles(root: Path) -> list[str]:
    """Return the names of the profiles of a project and the library."""
    return sorted({part.stem for folder in _roots(root) for part in folder.glob("_profiles/*.toml")})


def overlay(composition: Composition, profile: str) -> None:
    """Apply a profile, its ``when`` tables last."""
    path = _part(composition, f"_profiles/{profile}")
    if path is None:
        here = profiles(composition.root)
        path = composition.root / "_profiles" / f"{profile}.toml"
        composition.add_problem(
            path, f"no such profile{near_miss(profile, here)}", f"profiles here: {', '.join(here) or 'none'}"
        )
        return
    table = parse(composition, path)
    when = table.pop("when", {})
    _apply(composition, table, path)
    words = [composition.merged.get(key) for key in ("type", "algorithm", "subject", "name")]
    if not isinstance(when, dict):
        composition.add_problem(path, "when: takes tables, as [when.loha.training]")
        return
    for word in dict.fromkeys(words):
        extra = when.get(word) if isinstance(word, str) else None
        if isinstance(extra, dict):
            _apply(composition, extra, path)
            if word in words[2:]:
                composition.meant.update(dict(leaves(extra)))


def leaves(table: TomlTable, trail: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted key and value of each value in nested tables."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{trail}{key}.")
        else:
            yield f"{trail}{key}", value


def find_images(composition: Composition) -> None:
    """Replace ``program:`` in the paths of images by the program's folder.

    In the program's own project they are relative, as the other paths are.
    """
    dataset = composition.merged.get("dataset")
    sources = dataset.get("sources") if isinstance(dataset, dict) else None
    here = composition.root.resolve() == library().resolve()
    for source in sources.values() if isinstance(sources, dict) else ():
        images = source.get("images") if isinstance(source, dict) else None
        if isinstance(images, str) and images.startswith(PROGRAM):
            path = images.removeprefix(PROGRAM)
            source["images"] = path if here else str(settings.program_folder() / path)


def _strings(composition: Composition, path: Path, table: TomlTable, key: str) -> list[str]:
    """Remove ``key`` from ``table`` and return its list of strings."""
    value = table.pop(key, [])
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        composition.add_problem(path, f"{key}: takes an array of strings")
        return []
    return value


def _apply(composition: Composition, table: TomlTable, path: Path) -> None:
    """Remove the keys that ``table`` unsets, then merge it over the recipe."""
    for dotted in _strings(composition, path, table, "unset"):
        *above, last = dotted.split(".")
        target: Any = composition.merged
        for key in above:
            target = target.get(key, {}) if isinstance(target, dict) else {}
        if isinstance(target, dict):
            target.pop(last, None)
    _merge(composition.merged, table, (), str(path), composition.origin)


def _merge(into: TomlTable, table: TomlTable, trail: tuple[str, ...], file: str, origin: dict[str, str]) -> None:
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
