"""The verbs of ``dataset``: build, check, import. Cheap to import; each brings what it needs when it is called."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.system.terminal import print_json, say

if TYPE_CHECKING:
    from orchestrator.recipe import Recipe

Name = Annotated[str, typer.Argument(metavar="RECIPE", help="Recipe name, or path of a TOML file.")]
Profile = Annotated[str, typer.Option(help="Overlay from recipes/_profiles.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]

app = typer.Typer(help="From a folder of pictures to what the trainer sees.", no_args_is_help=True, rich_markup_mode=None)


def register(parent: typer.Typer) -> None:
    """Add ``dataset`` to the command line."""
    parent.add_typer(app, name="dataset")


def _recipe(name: str, profile: str) -> tuple[Recipe, Path]:
    """Return a recipe and the project folder it belongs to; RecipeError if it reads folders that nobody gave."""
    from orchestrator.dataset.sources import source_files  # noqa: PLC0415
    from orchestrator.errors import RecipeError  # noqa: PLC0415
    from orchestrator.recipe import loader  # noqa: PLC0415
    from orchestrator.run.workspace import find_root  # noqa: PLC0415
    from orchestrator.system import allowlist  # noqa: PLC0415

    root = find_root()
    recipe = loader.recipe(root / "recipes", name, profile).recipe
    strange = allowlist.problems(recipe, root)
    strange = strange or allowlist.links(recipe, [path for _, path in source_files(recipe.dataset, root)], root)
    if strange:
        raise RecipeError(strange)
    return recipe, root


@app.command("build")
def build_(
    recipe: Name,
    *,
    profile: Profile = "",
    output: Annotated[Path | None, typer.Option(help="Folder to write to; default: build/datasets/NAME.")] = None,
) -> None:
    """Write the training folders of a recipe; nothing is written when nothing has changed."""
    from orchestrator.dataset.build import build  # noqa: PLC0415
    from orchestrator.dataset.lint.console import bar  # noqa: PLC0415

    loaded, root = _recipe(recipe, profile)
    folder = output or root / "build" / "datasets" / loaded.dataset.name
    with bar(f"dataset {loaded.dataset.name}") as report:
        done = build(loaded.dataset, root, folder, report)
    say(f"{folder}: {done.pictures} pictures{', nothing has changed' if done.unchanged else ''}")


@app.command("check")
def check_(
    recipe: Name,
    *,
    profile: Profile = "",
    json: AsJson = False,
    contact: Annotated[Path | None, typer.Option(help="Also write a contact sheet to this HTML file.")] = None,
) -> None:
    """Say what the trainer will see, and what is wrong with it; exit code 3 when something would stop it."""
    from orchestrator.dataset import lint  # noqa: PLC0415
    from orchestrator.dataset.lint import console  # noqa: PLC0415

    loaded, root = _recipe(recipe, profile)
    folder = root / "build" / "datasets" / loaded.dataset.name
    report = lint.check(loaded.dataset, root, loaded.training, memory=lint.memory(root), built=folder)
    if json:
        print_json(report.as_json())
    else:
        console.show(loaded.dataset, report)
    if contact is not None:
        from orchestrator.dataset import contact_sheet as sheet  # noqa: PLC0415

        contact.parent.mkdir(parents=True, exist_ok=True)
        contact.write_text(sheet.page(report), encoding="utf-8")
        say(contact, file=sys.stderr)
    if report.errors():
        raise typer.Exit(3)


@app.command("import")
def import_(
    folder: Annotated[
        Path, typer.Argument(help="kohya's N_name folders, a folder of CharFramework, or a folder of pictures.")
    ],
    *,
    name: Annotated[str, typer.Option(help="Name of the dataset; default: from the folder.")] = "",
    output: Annotated[
        Path | None, typer.Option(help="TOML file to write, as recipes/_subjects/NAME.toml; default: stdout.")
    ] = None,
) -> None:
    """Write the [dataset] part of a recipe for pictures that exist already; they are not touched."""
    from orchestrator.errors import Problem, RecipeError  # noqa: PLC0415
    from orchestrator.importers.picture_folders import describe  # noqa: PLC0415
    from orchestrator.run.workspace import find_root  # noqa: PLC0415

    text = describe(folder, find_root(), name)
    if output is None:
        say(text, end="")
        return
    if output.exists():
        raise RecipeError(Problem(str(output), "exists already", "choose another --output, or move it away"))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    say(output)
