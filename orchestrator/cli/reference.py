"""Program: write the reference pages of the documentation.

``python -m orchestrator.cli.reference docs/reference``
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command

from orchestrator.cli import app
from orchestrator.cli.usage import NAME, verbs
from orchestrator.recipe import schema

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONG: Final = 40  # characters: a longer default is left out of a table
_ENVIRONMENT: Final = {
    "KRNK_PROJECT": "Project folder, instead of the nearest one with recipes/.",
    "KRNK_RUNS": "Folder of results, instead of runs/ of the project.",
    "KRNK_MODELS": "Folders of models, besides models/ of the project.",
    "KRNK_TORCH": "Build of torch for `make setup` (cu130, cu128, cu126, cu118, cpu), instead of the newest that runs.",
    "KRNK_NOTIFY": "Address (of apprise) for messages about ended runs.",
    "SD_SCRIPTS_DIR": "sd-scripts checkout, instead of third_party/sd-scripts.",
    "SD_SCRIPTS_PYTHON": "Python with the requirements of sd-scripts.",
    "SD_SCRIPTS_TOKENIZERS": "Folder of the tokenizers' files.",
    "NO_COLOR": "No colours.",
}
_CODES: Final = {
    "0": "done",
    "1": "a step failed",
    "2": "a recipe or the command line is wrong; nothing was run",
    "3": "the machine lacks something; nothing was run",
    "130": "stopped by ^C, TERM or a closed terminal; the same command resumes",
}


def write(app: typer.Typer, folder: Path) -> list[Path]:
    """Write the reference of a command line and of recipes to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"cli.md": commands(app), "recipe.md": recipes()}
    for name, text in pages.items():
        (folder / name).write_text(text, "utf-8")
    return [folder / name for name in pages]


def commands(app: typer.Typer) -> str:
    """Return the reference of a command line in Markdown."""
    lines = ["# Command line", "", f"`{NAME} VERB …`, or `python -m {NAME} VERB …`. Every verb has `--help`.", ""]
    for words, command in all_verbs(app):
        lines += [f"## {words}", "", "```text", _usage(words, command), "```", "", command.help or "", ""]
        rows = list(_options(command))
        if rows:
            lines += ["| | |", "| --- | --- |", *(f"| `{_cell(name)}` | {_cell(text)} |" for name, text in rows), ""]
    lines += ["## Environment", "", "| | |", "| --- | --- |"]
    lines += [*(f"| `{name}` | {text} |" for name, text in _ENVIRONMENT.items()), ""]
    lines += ["## Exit codes", "", "| | |", "| --- | --- |", *(f"| {code} | {text} |" for code, text in _CODES.items()), ""]
    return "\n".join(lines)


def all_verbs(app: typer.Typer) -> Iterator[tuple[str, Any]]:
    """Yield (words, command) of every verb of a command line."""
    group = get_command(app)
    assert isinstance(group, TyperGroup)  # noqa: S101 - an app with several verbs
    yield from verbs(group)


def _usage(words: str, command: Any) -> str:
    arguments = [_metavar(parameter) for parameter in command.params if parameter.param_type_name == "argument"]
    return " ".join([NAME, words, *arguments, "[OPTIONS]"])


def _metavar(argument: Any) -> str:
    name = argument.metavar or argument.name.strip("_").upper()
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _options(command: Any) -> Iterator[tuple[str, str]]:
    """Yield (spelling, help) of the arguments and options of a verb."""
    context = typer.Context(command)
    for parameter in command.params:
        if parameter.name == "help":
            continue
        record = parameter.get_help_record(context)
        if parameter.param_type_name == "argument":
            yield _metavar(parameter), parameter.help or (record[1] if record else "")
        elif record is not None:
            yield record


def recipes() -> str:
    """Return the reference of recipe files in Markdown, from the schema."""
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
        lines += [f"## {title}", "", " ".join(str(model.get("description", "")).split()), ""]
        lines += ["| key | takes | default | |", "| --- | --- | --- | --- |"]
        for name, field in fields.items():
            default = json.dumps(field["default"], ensure_ascii=False) if field.get("default") is not None else ""
            default = f"`{_cell(default)}`" if default and len(default) < _LONG else ""
            examples = ", ".join(f"`{json.dumps(value, ensure_ascii=False)}`" for value in field.get("examples", [])[:2])
            text = field.get("description", "") + (f" Example: {examples}." if examples else "")
            lines.append(f"| `{name}` | {_cell(_takes(field))} | {default} | {_cell(text)} |")
        lines.append("")
    return "\n".join(lines)


def _takes(field: dict[str, Any]) -> str:
    """Return the type of a field in words, from its schema."""
    if "$ref" in field:
        return f"table {field['$ref'].rpartition('/')[2]}"
    if "enum" in field:
        return ", ".join(str(value) for value in field["enum"])
    if "const" in field:
        return str(field["const"])
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_takes(part) for part in field["anyOf"] if part.get("type") != "null"))
    if field.get("type") == "array":
        return f"array of {_takes(field['items'])}" if isinstance(field.get("items"), dict) else "array"
    if field.get("type") == "object":
        inner = field.get("additionalProperties")
        return f"table of {_takes(inner)}" if isinstance(inner, dict) and inner else "table"
    return str(field.get("type", "value"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


if __name__ == "__main__":
    for page in write(app, Path(sys.argv[1])):
        print(page)
