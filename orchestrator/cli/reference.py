"""What the command line says of itself, from its own definition: the manual page, a reference, shell completion."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from orchestrator.errors import Problem, RecipeError, near_miss

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME: Final = "orchestrator"
_LONG: Final = 40  # characters of a default that a table shows
SHELLS: Final = ("bash", "zsh", "fish")
_ENVIRONMENT: Final = {
    "KRNK_PROJECT": "The project folder, instead of the nearest one with recipes/.",
    "KRNK_RUNS": "Where results are stored, instead of runs/ of the project.",
    "KRNK_MODELS": "Folders in which models are looked for, besides models/ of the project.",
    "KRNK_NOTIFY": "Where messages about ended runs go (an address of apprise).",
    "SD_SCRIPTS_DIR": "The sd-scripts checkout, instead of third_party/sd-scripts.",
    "SD_SCRIPTS_PYTHON": "The Python that has sd-scripts' requirements.",
    "SD_SCRIPTS_TOKENIZERS": "The folder of the tokenizers' files.",
    "NO_COLOR": "No colours.",
}
_CODES: Final = {
    "0": "done",
    "1": "a step failed",
    "2": "a recipe or the command line is wrong; nothing was run",
    "3": "the machine lacks something; nothing was run",
    "130": "stopped by ^C, TERM or a closed terminal; the same command goes on",
}


def verbs() -> Iterator[tuple[str, Any]]:
    """Yield (words, command) of every verb, as ("dataset build", …), in the order of --help."""
    from typer.main import get_command  # noqa: PLC0415

    from orchestrator.cli import whole  # noqa: PLC0415 - the command line imports this module only when asked

    yield from _walk(get_command(whole()), "")


def _walk(group: Any, before: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _walk(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def usage(words: str, command: Any) -> str:
    """Return the line that says how a verb is called."""
    arguments = [_metavar(one) for one in command.params if one.param_type_name == "argument"]
    return " ".join([NAME, words, *arguments, "[OPTIONS]"])


def _metavar(one: Any) -> str:
    name = one.metavar or one.name.strip("_").upper()
    return name if one.required or name.startswith("[") else f"[{name}]"


def options(command: Any) -> Iterator[tuple[str, str]]:
    """Yield (how it is written, what it does) of a verb's arguments and options, as --help says them."""
    import typer  # noqa: PLC0415

    context = typer.Context(command)
    for one in command.params:
        if one.name == "help":
            continue
        record = one.get_help_record(context)
        if one.param_type_name == "argument":
            yield _metavar(one), one.help or (record[1] if record else "")
        elif record is not None:
            yield record[0], record[1]


def page() -> str:
    """Return the manual page (man 1) in roff."""
    lines = [f'.TH {NAME.upper()} 1 "" "{NAME} {_version()}" "User Commands"', ".SH NAME"]
    lines += [rf"{NAME} \- character LoRAs from images to a published release", ".SH SYNOPSIS"]
    lines += [rf".B {NAME}", r"\fIVERB\fR [\fIOPTIONS\fR] \fR...", ".SH VERBS"]
    for words, command in verbs():
        lines += [".SS " + _roff(usage(words, command).removeprefix(f"{NAME} ")), _roff(_said(command))]
        for written, what in options(command):
            lines += [".TP", rf"\fB{_roff(written)}\fR", _roff(what) or " "]
    for title, table in (("ENVIRONMENT", _ENVIRONMENT), ("EXIT STATUS", _CODES)):
        lines.append(f".SH {title}")
        for name, what in table.items():
            lines += [".TP", rf"\fB{name}\fR", _roff(what)]
    lines += [
        ".SH FILES",
        ".TP",
        r"\fB~/.config/krnk/config.toml\fR",
        "Settings of this machine: models, notify, [sd-scripts].",
    ]
    return "\n".join(lines) + "\n"


def reference() -> str:
    """Return the reference of the command line in Markdown."""
    lines = ["# Command line", "", f"`{NAME} VERB …`, or `python -m {NAME} VERB …`. Every verb has `--help`.", ""]
    for words, command in verbs():
        lines += [f"## {words}", "", "```text", usage(words, command), "```", "", _said(command), ""]
        table = list(options(command))
        if table:
            lines += ["| | |", "| --- | --- |", *(f"| `{_cell(written)}` | {_cell(what)} |" for written, what in table), ""]
    lines += [
        "## Environment",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| `{name}` | {what} |" for name, what in _ENVIRONMENT.items()),
        "",
    ]
    lines += ["## Exit codes", "", "| | |", "| --- | --- |", *(f"| {code} | {what} |" for code, what in _CODES.items()), ""]
    return "\n".join(lines)


def recipe_reference() -> str:
    """Return the reference of recipe files in Markdown, from the schema."""
    from orchestrator.recipe import schema  # noqa: PLC0415

    document = schema.document()
    lines = [
        "# Recipe",
        "",
        "A recipe is a TOML file; everything may come from the parts that it `extends`. Units are in the text.",
        "",
    ]
    for title, model in {"Recipe": document, **document["$defs"]}.items():
        fields = model.get("properties")
        if not fields:
            continue
        lines += [
            f"## {title}",
            "",
            " ".join(str(model.get("description", "")).split()),
            "",
            "| key | takes | default | |",
            "| --- | --- | --- | --- |",
        ]
        for name, one in fields.items():
            shown = json.dumps(one["default"], ensure_ascii=False) if one.get("default") is not None else ""
            shown = f"`{_cell(shown)}`" if shown and len(shown) < _LONG else ""
            examples = ", ".join(f"`{json.dumps(value, ensure_ascii=False)}`" for value in one.get("examples", [])[:2])
            what = one.get("description", "") + (f" Example: {examples}." if examples else "")
            lines.append(f"| `{name}` | {_cell(_takes(one))} | {shown} | {_cell(what)} |")
        lines.append("")
    return "\n".join(lines)


def _takes(one: dict[str, Any]) -> str:
    """Return what a field takes, in words, from its schema."""
    if "$ref" in one:
        return f"table {one['$ref'].rpartition('/')[2]}"
    if "enum" in one:
        return ", ".join(str(value) for value in one["enum"])
    if "const" in one:
        return str(one["const"])
    if "anyOf" in one:
        return " or ".join(dict.fromkeys(_takes(part) for part in one["anyOf"] if part.get("type") != "null"))
    if one.get("type") == "array":
        return f"array of {_takes(one['items'])}" if isinstance(one.get("items"), dict) else "array"
    if one.get("type") == "object":
        inner = one.get("additionalProperties")
        return f"table of {_takes(inner)}" if isinstance(inner, dict) and inner else "table"
    return str(one.get("type", "value"))


def write(folder: Path) -> list[Path]:
    """Write the reference pages of the documentation into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"cli.md": reference(), "recipe.md": recipe_reference()}
    for name, text in pages.items():
        (folder / name).write_text(text, "utf-8")
    return [folder / name for name in pages]


def completion(shell: str) -> str:
    """Return the script that completes verbs, options and recipe names in a shell.

    Raises:
        RecipeError: a shell that is not known.
    """
    if shell not in SHELLS:
        raise RecipeError(Problem(shell, f"no such shell{near_miss(shell, SHELLS)}", ", ".join(SHELLS)))
    from typer._completion_shared import get_completion_script  # noqa: PLC0415

    return str(get_completion_script(prog_name=NAME, complete_var="_ORCHESTRATOR_COMPLETE", shell=shell)) + "\n"


def _said(command: Any) -> str:
    return " ".join((command.help or "").split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _roff(text: str) -> str:
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("\n", " ")
    escaped = "".join(char if char.isascii() else rf"\[u{ord(char):04X}]" for char in escaped)
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped


def _version() -> str:
    try:
        return version("krnk")
    except PackageNotFoundError:
        return ""
