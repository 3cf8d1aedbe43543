"""Commands that the program shows.

In the front pages, in --help, in messages; and a clone to run them in.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.main import get_command

from orchestrator import cli
from orchestrator.cli.usage import verbs

if TYPE_CHECKING:
    from collections.abc import Iterator

COPIED = ("orchestrator", "recipes", "data", "tools", "benchmarks", "Makefile", "pyproject.toml", "constraints.txt")
PROGRAM = re.compile(r"\S*python\S* -m orchestrator(?= [a-z-])")
"""The program's name before a verb, as people type it."""
_END = re.compile(r"  |;|, | \(|\)|`|$", re.MULTILINE)  # of a command in a message


def of_page(path: Path) -> list[str]:
    """Return the command lines in the blocks of a page, without their comments."""
    lines, kind = [], None
    for line in path.read_text("utf-8").splitlines():
        text = line.strip()
        if text.startswith("```"):
            kind = text[3:] or "text" if kind is None else None
        elif kind == "sh" or (kind is not None and text.startswith("$ ")):
            lines.append(text.removeprefix("$ ").partition(" #")[0].strip())
    return [line for line in lines if line]


def in_text(path: Path) -> list[str]:
    """Return the commands between backticks in the text of a page."""
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    words = {words for words, _ in all_verbs()}
    begins = ("make ", "python -m ", "pip install ", *(f"{each} " for each in words))
    return [span for span in spans if span.startswith(begins) or " make " in span]


def all_verbs() -> list[tuple[str, Any]]:
    """Return (words, command) of every verb."""
    return list(verbs(get_command(cli.app)))  # type: ignore[arg-type]


def in_message(text: str) -> list[str]:
    """Return the commands of the program and of make in a message or a page of help."""
    found = []
    for match in re.finditer(rf"{PROGRAM.pattern}|(?<![\w-])make (?:-C \S+ )?(?=[a-z])", text):
        end = _END.search(text, match.end())
        found.append(text[match.start() : end.start() if end else None].strip().rstrip(".:"))
    return found


def in_source(path: Path) -> Iterator[str]:
    """Yield the commands in the strings of a module; X stands for each value in them."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
            yield from in_message("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from in_message(node.value)


def words_of(line: str) -> list[str]:
    """Return the words after the program's name."""
    return shlex.split(PROGRAM.sub("", line, count=1))


def unknown(words: list[str]) -> str:
    """Return the first word that is neither a verb nor one of its options, or ""."""
    known = dict(all_verbs())
    if words == ["--help"]:
        return ""
    verb = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0]
    if verb not in known:
        return words[0]
    options = {option for parameter in known[verb].params for option in (*parameter.opts, *parameter.secondary_opts)}
    options |= {"--help", "-h"}
    return next((word for word in words if word.startswith("-") and word.partition("=")[0] not in options), "")


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a command line: exit code (of the command that make ran), output and errors together."""

    line: str
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Clone:
    """A clone of the repository in which a newcomer stands, with a Python that has the packages."""

    root: Path
    home: Path

    def run(self, line: str) -> Result:
        """Run a command line as a shell in the folder does, without sd-scripts, GPU and network."""
        env = {"HOME": str(self.home), "PATH": f"{self.root}/.venv/bin:/usr/bin:/bin", "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}
        env["PYTHONDONTWRITEBYTECODE"] = "1"
        shell = ["/bin/sh", "-c", line]
        done = subprocess.run(
            shell, cwd=self.root, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
        )
        of_make = re.search(r"^make: \*\*\* .* Error (\d+)$", done.stderr, re.MULTILINE)
        return Result(line, int(of_make[1]) if of_make else done.returncode, done.stdout + done.stderr)


def clone(folder: Path, project: Path) -> Clone:
    """Copy the program and its environment's Python into a folder."""
    root, home = folder / "krnk", folder / "home"
    home.mkdir(parents=True)
    root.mkdir()
    for name in COPIED:
        if (project / name).is_dir():
            shutil.copytree(project / name, root / name)
        else:
            shutil.copy2(project / name, root / name)
    _environment(root / ".venv")
    return Clone(root, home)


def _environment(folder: Path) -> None:
    """Make a virtual environment of this process's packages, as make has installed them."""
    (folder / "bin").mkdir(parents=True)
    prefix = Path(sys.prefix)
    if (prefix / "pyvenv.cfg").is_file():
        shutil.copy2(prefix / "pyvenv.cfg", folder)
        (folder / "lib").symlink_to(prefix / "lib")
    for name in ("python", "python3"):
        (folder / "bin" / name).symlink_to(os.path.realpath(sys.executable))
    for stamp in (".light", ".embedded", ".dev"):
        (folder / stamp).touch()
