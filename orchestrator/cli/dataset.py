"""The verbs of ``dataset``: build, check, import."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import project
from orchestrator.cli.options import AsJson, Name, Profile
from orchestrator.cli.progress import progress_bar
from orchestrator.cli.usage import IMAGES, GroupedHelp, help_alone
from orchestrator.errors import Problem, RecipeError, counted
from orchestrator.system.terminal import print_json, say

if TYPE_CHECKING:
    from orchestrator.recipe import Recipe

app = typer.Typer(
    cls=GroupedHelp,
    help="Build, check or import the images of a recipe.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
app.callback()(help_alone)


def register(parent: typer.Typer) -> None:
    """Add ``dataset`` to the command line."""
    parent.add_typer(app, name="dataset")


def _recipe(name: str, profile: str) -> tuple[Recipe, Path]:
    """Return a recipe and its project folder.

    Raises:
        RecipeError: the recipe is wrong, or reads folders outside the project and the allow-list.
    """
    from orchestrator.run import preflight

    root = project.root()
    return preflight.load_allowed(root, name, profile), root


@app.command("build", rich_help_panel=IMAGES)
def build_(
    recipe: Name,
    *,
    profile: Profile = "",
    output: Annotated[Path | None, typer.Option(help="Folder to write. Default: build/datasets/NAME.")] = None,
) -> None:
    """Write the training folders of a recipe. Unchanged folders stay."""
    from orchestrator.dataset.build import build

    loaded, root = _recipe(recipe, profile)
    folder = output or root / "build" / "datasets" / loaded.built_dataset()
    with progress_bar(f"dataset {loaded.built_dataset()}") as tick:
        done = build(loaded.dataset, root, folder, tick, loaded.training.validation)
    say(f"{folder}: {counted(done.images, 'image')}{', nothing has changed' if done.unchanged else ''}")


@app.command("check", rich_help_panel=IMAGES)
def check_(
    recipe: Name,
    *,
    profile: Profile = "",
    json: AsJson = False,
    contact: Annotated[Path | None, typer.Option(help="Also write a contact sheet to this HTML file.")] = None,
) -> None:
    """Check the images and captions of a recipe.

    Prints the buckets and steps of the trainer, then the findings. The exit code is 3 after an error.
    """
    from orchestrator.dataset import contact_sheet, lint, lint_console

    loaded, root = _recipe(recipe, profile)
    folder = root / "build" / "datasets" / loaded.built_dataset()
    architecture = loaded.base.architecture
    cache = lint.hash_cache(root)
    report = lint.check(loaded.dataset, root, loaded.training, architecture=architecture, cache=cache, built=folder)
    if json:
        print_json(report.as_json())
    else:
        lint_console.show(report)
    if contact is not None:
        contact.parent.mkdir(parents=True, exist_ok=True)
        contact.write_text(contact_sheet.page(report), encoding="utf-8")
        say(contact, file=sys.stderr)
    if report.errors():
        raise typer.Exit(3)


@app.command("import", rich_help_panel=IMAGES)
def import_(
    folder: Annotated[Path, typer.Argument(help="kohya's N_name folders, a folder of CharFramework, or a folder of images.")],
    *,
    name: Annotated[str, typer.Option(help="Name of the dataset. Default: from the folder.")] = "",
    output: Annotated[
        Path | None, typer.Option(help="TOML file to write, as recipes/_subjects/NAME.toml. Default: stdout.")
    ] = None,
) -> None:
    """Write the [dataset] table of a recipe for existing images."""
    from orchestrator.importers.picture_folders import describe

    text = describe(folder, project.root(), name)
    if output is None:
        say(text, end="")
        hint = "a part of a recipe: with --output recipes/_subjects/NAME.toml, a recipe takes it by extends"
        say(f'\n{hint} = [..., "_subjects/NAME"]', file=sys.stderr)
        return
    if output.exists():
        raise RecipeError(Problem(str(output), "exists already", "choose another --output, or move it away"))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    say(output)
    part = f"{output.parent.name}/{output.stem}"
    say(f'next: extends = ["_base/release-2023-03", "_algorithms/locon", "{part}"] in recipes/NAME.toml', file=sys.stderr)
    say("then: python -m orchestrator dataset check NAME", file=sys.stderr)
