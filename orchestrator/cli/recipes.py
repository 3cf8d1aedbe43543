"""The verbs for recipe files: new, import, schema."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import project
from orchestrator.cli.options import AsJson
from orchestrator.cli.usage import RECIPES
from orchestrator.errors import Problem, RecipeError
from orchestrator.system.terminal import print_json, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.importers.new_subject import GeneratedRecipes
    from orchestrator.importers.subject_options import NewSubject
    from orchestrator.importers.to_recipe import ImportedRecipe

Images = Annotated[list[Path], typer.Option("--images", help="Folder of images. Repeat it for every further source.")]
Trigger = Annotated[list[str], typer.Option(help="Trigger words, with commas between. Repeat it, once for each --images.")]
Algorithm = Annotated[list[str], typer.Option(help="lora3x3, locon, loha, … Repeat it for more. Default: those three.")]

_WARNINGS = 8


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("new", rich_help_panel=RECIPES)(new)
    app.command("import", rich_help_panel=RECIPES)(import_)
    app.command("schema", rich_help_panel=RECIPES)(schema)


def new(
    subject: Annotated[str, typer.Argument(help="Name of the subject, used for files and as trigger word.")],
    *,
    images: Images,
    type_: Annotated[str, typer.Option("--type", help="face, body, group, style or object. Default: from the images.")] = "",
    trigger: Trigger = [],
    algorithm: Algorithm = [],
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps. Default: by the type.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Repeats of every image. Default: by the type.")] = None,
    base: Annotated[
        str, typer.Option(help="File of the base model; its header tells the architecture. Default: the release's.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Accept the proposal without a question.")] = False,
    json: AsJson = False,
) -> None:
    """Write recipes for a folder of images.

    Example: orchestrator new mimika --images pictures
    """
    from orchestrator.dataset.lint.findings import Level
    from orchestrator.importers import new_subject, subject_options

    root = project.root_or_here()
    if base and not Path(base).is_absolute() and Path(base).is_file():
        base = Path(os.path.relpath(base, root)).as_posix()  # a recipe names files from the project's folder
    arguments = subject_options.NewSubject(
        subject, tuple(images), type_, tuple(trigger), tuple(algorithm), steps, repeats, base
    )
    generated = new_subject.generate(arguments, root)
    terminal = sys.stdin.isatty() and sys.stderr.isatty() and not json
    if not (yes or terminal):
        _print_notes(generated)
        raise RecipeError(
            Problem("new", "wrote nothing: without a terminal it cannot ask", "add --yes to accept this proposal")
        )
    if not yes:
        suggested, words = subject_options.suggested_type(arguments), subject_options.trigger_words(arguments)
        arguments = _confirm(arguments, generated, suggested, words)
        generated = new_subject.generate(arguments, root)
    written = new_subject.write(generated, root)
    findings = new_subject.findings(generated, root)
    problems = [str(Problem(each.where, each.what, each.hint)) for each in findings if each.level is Level.ERROR]
    warnings = [f"{each.where}  {each.what}" for each in findings if each.level is not Level.ERROR]
    if json:
        print_json(
            {
                "files": [str(path) for path in written],
                "recipes": list(generated.recipes),
                "notes": list(generated.notes),
                "problems": problems,
                "warnings": warnings,
            }
        )
    else:
        _print_new(generated, written, problems, warnings)
    if problems:
        raise typer.Exit(3)


def _confirm(arguments: NewSubject, generated: GeneratedRecipes, suggested: str, words: Sequence[str]) -> NewSubject:
    """Ask for type and trigger words, and return the new arguments."""
    for note in generated.notes:
        typer.echo(note, err=True)
    kind = typer.prompt("type (face, body, group, style, object)", default=suggested, err=True)
    triggers = [
        typer.prompt(f"trigger word of {folder}", default=word, err=True)
        for folder, word in zip(arguments.images, words, strict=True)
    ]
    return dataclasses.replace(arguments, type=kind, triggers=tuple(triggers))


def _print_notes(generated: GeneratedRecipes) -> None:
    for note in generated.notes:
        say(f"  {note}")


def _print_new(generated: GeneratedRecipes, written: list[Path], problems: list[str], warnings: list[str]) -> None:
    _print_notes(generated)
    say()
    for path in written:
        say(f"wrote {path}")
    if warnings:
        more = [f"and {len(warnings) - _WARNINGS} more"] if len(warnings) > _WARNINGS else []
        check = f"\n  python -m orchestrator dataset check {generated.recipes[0]}  says more"
        say("\n  ".join(["\nLook at these images before the training:", *warnings[:_WARNINGS], *more]) + check)
    if problems:
        say("\n  ".join(["\nFix these problems of the images first:", *map(str, problems)]), file=sys.stderr)
        return
    name = generated.recipes[0]
    say(
        f"\nnext, on any machine, in one to two minutes:\n    python -m orchestrator run {name} --profile demo\n"
        f"on a GPU, for real:\n    python -m orchestrator doctor {name}\n    python -m orchestrator run {name}"
    )


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="kohya_ss JSON, LoRA_Easy, lora-scripts or sd-scripts TOML, a script, a LoRA, or a LoRA line."
        ),
    ],
    *,
    name: Annotated[str, typer.Option(help="Name of the recipe. Default: from the file.")] = "",
    output: Annotated[Path | None, typer.Option(help="File to write. Default: recipes/NAME.toml.")] = None,
    stdout: Annotated[bool, typer.Option("--stdout", help="Print the recipe instead of writing it.")] = False,
    whole: Annotated[bool, typer.Option("--all", help="List every setting, also those kept, on its own line.")] = False,
    json: AsJson = False,
) -> None:
    """Turn the settings of another program into a recipe.

    Example: orchestrator import old-settings.json --name mimika
    """
    from orchestrator.importers import reader, summary, to_recipe

    imported = [to_recipe.recipe(settings, name) for settings in reader.read(source)]
    files = [] if stdout else _write_imported(imported, output)
    if json:
        print_json({"recipes": [recipe.as_json() for recipe in imported], "files": [str(path) for path in files]})
        return
    out = sys.stderr if stdout else sys.stdout
    for recipe in imported:
        if stdout:
            say(recipe.text(), end="")
        say("\n".join(summary.lines(recipe, whole=whole)), file=out)
    for path in files:
        say(f"wrote {path}\n    python -m orchestrator doctor {path.stem}  lists what is missing on this machine")


def _write_imported(imported: list[ImportedRecipe], output: Path | None) -> list[Path]:
    if output is not None and len(imported) > 1:
        raise RecipeError(
            Problem("--output", f"this file holds {len(imported)} trainings", "leave it out: each becomes a file in recipes/")
        )
    folder = project.root_or_here() / "recipes"
    files = [output or folder / f"{recipe.name}.toml" for recipe in imported]
    existing = [
        Problem(str(path), "exists already", "choose another --name, or move it away") for path in files if path.exists()
    ]
    if existing:
        raise RecipeError(existing)
    for path, recipe in zip(files, imported, strict=True):
        recipe.write(path)
    return files


def schema(
    *,
    write: Annotated[bool, typer.Option("--write", help="Write recipes/recipe.schema.json instead of printing it.")] = False,
) -> None:
    """Print the JSON Schema of a recipe, for editors.

    Example: orchestrator schema --write
    """
    from orchestrator.recipe import schema as schema_

    if write:
        path = project.root() / "recipes" / schema_.FILE
        path.write_text(schema_.dumps(), "utf-8")
        say(path)
    else:
        print(schema_.dumps(), end="")
