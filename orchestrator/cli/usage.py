"""Help of the command line: groups, version, usage errors."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperGroup

from orchestrator.errors import near_miss
from orchestrator.system.terminal import COMMAND

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAME: Final = "orchestrator"
RECIPES, IMAGES, LORA_FILES, RELEASE, MACHINE = "Recipes and runs", "Images", "LoRA files", "Release", "This machine"
GROUPS: Final = (RECIPES, IMAGES, LORA_FILES, RELEASE, MACHINE)
"""Titles of the groups in ``--help``, in their order. A verb names its group as ``rich_help_panel``."""


class GroupedHelp(TyperGroup):
    """A group of verbs, listed by ``--help`` under the titles of ``GROUPS``.

    Typer prints panels by rich alone, and importing rich takes longer than everything else that ``--help`` does.
    """

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the verbs, one line each, group by group."""
        del ctx
        rows = [(command.rich_help_panel, words, command) for words, command in verbs(self)]
        column = max(len(words) for _, words, _ in rows)
        limit = formatter.width - 4 - column  # indent and gap take two each
        for title in (*GROUPS, None):
            lines = [
                (words.ljust(column), command.get_short_help_str(limit)) for panel, words, command in rows if panel == title
            ]
            if lines:
                with formatter.section(title or "Commands"):
                    formatter.write_dl(lines, col_max=formatter.width)


def verbs(group: TyperGroup, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (words, command) of every verb, as ("dataset build", …)."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from verbs(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def print_version(value: bool) -> None:
    """Print the version and end (``--version``)."""
    if value:
        typer.echo(f"{NAME} {installed_version()}")
        raise typer.Exit


def installed_version() -> str:
    """Return the version of the installed package, or "" without one."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("krnk")
    except PackageNotFoundError:
        return ""


Version = Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=print_version)]


def command_as_typed(argv: Sequence[str], here: Path) -> str:
    """Return the program's command as it works from ``here``.

    Args:
        argv: the whole command line with its interpreter (``sys.orig_argv``).
        here: the current folder.
    """
    if len(argv) > 2 and argv[1:3] == ["-m", NAME]:
        return shlex.join([argv[0], "-m", NAME])
    script = Path(argv[1]) if len(argv) > 1 else Path()
    if script.name != NAME or not script.is_absolute():
        return shlex.join([str(script)]) if script.name == NAME else COMMAND
    if shutil.which(NAME) == str(script):
        return NAME
    return shlex.join([str(script.relative_to(here) if script.is_relative_to(here) else script)])


def make_command(here: Path, root: Path) -> str:
    """Return ``make `` for the checkout at ``root``, called from ``here``."""
    elsewhere = here != root and (root / "Makefile").is_file()
    return f"make -C {shlex.quote(str(root))} " if elsewhere else "make "


def help_alone(context: typer.Context) -> None:
    """Print the help of a group that is called without a verb."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def typed_verb(command: object, argv: Sequence[str]) -> str:
    """Return the verb that a command line begins with, or ""."""
    verb: list[str] = []
    for word in argv:
        command = getattr(command, "commands", {}).get(word)
        if command is None:
            break
        verb.append(word)
    return " ".join(verb)


def usage_error(error: Exception, typed: str = "") -> str:
    """Return the message for a wrong command line, with the near miss.

    Args:
        error: the error of the parser.
        typed: the verb of the command line. Errors of an option's value do not know it.
    """
    message = str(error)
    parameter = getattr(error, "param", None)
    names = getattr(parameter, "opts", None) or [""]
    if message.startswith("Missing parameter"):
        name = getattr(parameter, "metavar", None) or names[0]
        message = f"{name if name.startswith('-') else name.upper()} is missing"
    elif names[0] and names[0] not in message:
        message = f"{names[0]}: {message}"
    option = getattr(error, "option_name", None)
    possibilities = getattr(error, "possibilities", None) or []
    context = getattr(error, "ctx", None)
    if isinstance(option, str) and possibilities and "did you mean" not in message.lower():
        message += f"; did you mean {possibilities[0]}?"
    elif isinstance(option, str) and not possibilities:
        parameters = getattr(getattr(context, "command", None), "params", [])
        message += near_miss(option, [name for parameter in parameters for name in parameter.opts])
    verb = (getattr(context, "command_path", "") or "").partition(" ")[2] if context else typed
    if verb:
        return f"{message}\n    python -m orchestrator {verb} --help  shows its options"
    return f"{message}\n    python -m orchestrator --help  shows the verbs"
