"""Options of ``new``: the subject, its checks, and the suggested values."""

from __future__ import annotations

import re
import shlex
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from orchestrator.errors import Problem, RecipeError, counted, near_miss
from orchestrator.importers import inspect_folder
from orchestrator.recipe import compose

if TYPE_CHECKING:
    from pathlib import Path

TYPES: Final = ("face", "body", "group", "style", "object")
UNFIT: Final = re.compile(r"[^A-Za-z0-9_-]+")
"""Characters that names of sources and recipes do not have."""
_LONGEST: Final = 120


@dataclass(frozen=True, slots=True)
class NewSubject:
    """Arguments of ``new``. Empty ones are suggested from the images."""

    name: str
    images: tuple[Path, ...]
    type: str = ""
    triggers: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ()
    """Empty: those of the release, or those that train the base model."""
    steps: int | None = None
    repeats: int | None = None
    base: str = ""


def check(subject: NewSubject) -> None:
    """Raise RecipeError with every problem of the options."""
    problems: list[Problem] = []
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}", subject.name):
        plain = UNFIT.sub("-", subject.name).strip("-") or "mychar"
        what = "is used in file names: letters, digits, - and _"
        problems.append(Problem(f"subject {subject.name}", what, f"for example {plain}"))
    for words in subject.triggers:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_ -]*(, *[A-Za-z0-9][A-Za-z0-9_ -]*)*", words) or len(words) > _LONGEST:
            what = f"is used in prompts: letters, digits, - and _, commas between words, at most {_LONGEST} letters"
            plain = UNFIT.sub("-", words).strip("-") or "mychar"
            problems.append(Problem(f"--trigger {words}", what, f"for example {plain[:_LONGEST]}"))
    if subject.type and subject.type not in TYPES:
        problems.append(Problem(f"--type {subject.type}", f"no such type{near_miss(subject.type, TYPES)}", ", ".join(TYPES)))
    parts = algorithms()
    problems += [
        Problem(f"--algorithm {algorithm}", f"no such algorithm{near_miss(algorithm, parts)}", ", ".join(parts))
        for algorithm in subject.algorithms
        if algorithm not in parts
    ]
    if subject.triggers and len(subject.triggers) not in (1, len(subject.images)):
        problems.append(
            Problem(
                "--trigger",
                f"{counted(len(subject.triggers), 'word')} for {counted(len(subject.images), 'folder')}",
                "one for each --images, in the same order",
            )
        )
    elif len(subject.images) > len(subject.triggers) == 1 and "," in subject.triggers[0]:
        apart = " ".join(f"--trigger {shlex.quote(word.strip())}" for word in subject.triggers[0].split(","))
        what = f"is one trigger of several words, for the first of {len(subject.images)} folders"
        problems.append(Problem(f"--trigger {subject.triggers[0]}", what, f"one for each --images: {apart}"))
    if not subject.images:
        problems.append(Problem("--images", "no folder of images", "python -m orchestrator new SUBJECT --images DIR"))
    if problems:
        raise RecipeError(problems)


def algorithms() -> dict[str, dict[str, Any]]:
    """Return the parts that define a network, by name.

    alpha1 and adafactor only change one.
    """
    files = sorted((compose.library() / "_algorithms").glob("*.toml"))
    tables = {path.stem: tomllib.loads(path.read_text("utf-8")) for path in files}
    return {name: table for name, table in tables.items() if "family" in table.get("network", {})}


def suggested_type(subject: NewSubject) -> str:
    """Return the type of a subject, or the one that its images suggest."""
    return subject.type or inspect_folder.suggest_type([inspect_folder.inspect(folder) for folder in subject.images])


def trigger_words(subject: NewSubject) -> list[str]:
    """Return one trigger word per folder.

    As given, or else the subject and the names of further folders.
    """
    if len(subject.triggers) == len(subject.images):
        return list(subject.triggers)
    words = [subject.triggers[0] if subject.triggers else subject.name.lower()]
    for folder in subject.images[1:]:
        word = UNFIT.sub("", folder.resolve().name).lower() or "other"
        while word in words:
            word += "x"
        words.append(word)
    return words
