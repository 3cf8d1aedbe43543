"""Problems, and the errors that carry them to the user."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WITHOUT: Final = "without all this"
"""Location of an advice at the end of a list, which is not a problem."""
_WHOLE: Final = 4  # letters of a word that is the beginning of a longer name, and not a slip


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem: where, what, and a hint.

    The hint is a likely cause or the next command.
    """

    where: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.where}  {self.what}" + (f"\n    {self.hint}" if self.hint else "")


def grouped(problems: Iterable[Problem], most: int = 2) -> list[Problem]:
    """Return each problem once.

    Problems with the same text at more than ``most`` locations become one.
    """
    locations: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        same = locations.setdefault((problem.what, problem.hint), [])
        if problem.where not in same:
            same.append(problem.where)
    result: list[Problem] = []
    for (text, hint), same in locations.items():
        if len(same) > most:
            result.append(Problem(f"{same[0]} and {len(same) - 1} more", text, hint))
        else:
            result += [Problem(where, text, hint) for where in same]
    return result


class OrchestratorError(Exception):
    """An error for the user: one or more problems, and an exit code."""

    exit_code = 1

    def __init__(self, problems: Iterable[Problem] | Problem) -> None:
        """Take one problem or several."""
        self.problems: Sequence[Problem] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class StepFailed(OrchestratorError):
    """A step ran and failed."""

    exit_code = 1


class RecipeError(OrchestratorError):
    """A recipe, an argument or an input file is wrong. Nothing was run."""

    exit_code = 2


class NotReady(OrchestratorError):
    """The machine lacks something that the recipe needs. Nothing was run."""

    exit_code = 3


def counted(number: int, noun: str, verb: str = "") -> str:
    """Return a number with its noun, and a verb: 1 module has, 2 modules have."""
    if number == 1:
        return f"1 {noun} { {'are': 'is', 'have': 'has'}.get(verb, f'{verb}s' if verb else '') }".rstrip()
    return f"{number} {noun}s {verb}".rstrip()


def near_miss(word: str, names: Iterable[str]) -> str:
    """Return the closest of ``names`` as a question, or "".

    The question begins with a semicolon and ends a message. Names that begin with the whole word come first.
    """
    every = list(names)
    longer = [name for name in every if len(word) >= _WHOLE and name.startswith(word)][:3]
    close = [" or ".join(longer)] if longer else difflib.get_close_matches(word, every, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def near_or_all(word: str, names: Sequence[str]) -> str:
    """Return the closest of ``names`` as a question, or all of them."""
    return near_miss(word, names) or f"; takes {', '.join(names)}"


def warning(problem: Problem) -> str:
    """Return the text of a problem that stops nothing."""
    return f"warning: {problem.where}\n    {problem.what}" + (f"\n    {problem.hint}" if problem.hint else "")


def report(error: OrchestratorError) -> str:
    """Return the text of an error: problems, hints and their number."""
    lines: list[str] = []
    for problem in error.problems:
        lines.append(f"{problem.where}\n    {problem.what}")
        if problem.hint:
            lines.append(f"    {problem.hint}")
    count = sum(problem.where != WITHOUT for problem in error.problems)
    if error.exit_code != 1:
        lines.append(f"{counted(count, 'problem')}. Nothing was run.")
    return "\n".join(lines)
