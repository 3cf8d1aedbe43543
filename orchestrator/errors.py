"""What can go wrong, said so that a person can mend it: where, what, and the next command."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: ``where`` it stands, ``what`` it is, and a ``hint`` (likely cause or the next command)."""

    where: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.where}  {self.what}" + (f"\n    {self.hint}" if self.hint else "")


def grouped(problems: Iterable[Problem], most: int = 2) -> list[Problem]:
    """Return each problem once; what more than ``most`` places share is said of the first, with how many have it."""
    same: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        places = same.setdefault((problem.what, problem.hint), [])
        if problem.where not in places:
            places.append(problem.where)
    found: list[Problem] = []
    for (what, hint), places in same.items():
        if len(places) > most:
            found.append(Problem(f"{places[0]} and {len(places) - 1} more", what, hint))
        else:
            found += [Problem(where, what, hint) for where in places]
    return found


class OrchestratorError(Exception):
    """An error meant for the user: one or more problems and the exit code that goes with them."""

    exit_code = 1

    def __init__(self, problems: Iterable[Problem] | Problem) -> None:
        """Take one problem or all of them."""
        self.problems: Sequence[Problem] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class StepFailed(OrchestratorError):
    """A step ran and did not do what it promised."""

    exit_code = 1


class RecipeError(OrchestratorError):
    """A recipe, an argument or an input file is wrong; nothing was run."""

    exit_code = 2


class NotReady(OrchestratorError):
    """The machine lacks something that the recipe needs; nothing was run."""

    exit_code = 3


def near_miss(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" for the closest of ``known``, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def report(error: OrchestratorError) -> str:
    """Return the text of an error: every problem with its place and hint, and how many there are."""
    lines: list[str] = []
    for problem in error.problems:
        lines.append(f"{problem.where}\n    {problem.what}")
        if problem.hint:
            lines.append(f"    {problem.hint}")
    count = len(error.problems)
    if error.exit_code != 1:
        lines.append(f"{count} problem{'s' if count != 1 else ''}. Nothing was run.")
    return "\n".join(lines)
