"""The pictures of one release: preview and grid of its views, with A1111's ``parameters`` text in both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import Image

from orchestrator.errors import Problem, StepFailed
from orchestrator.release import grid

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.recipe import Recipe

JSON = dict[str, Any]

_ENLARGED_SIDE = 512  # a preview smaller than this is enlarged: web UIs show it as a card


def load(folder: Path, columns: list[JSON]) -> dict[str, Image.Image]:
    """Return the pictures by prompt name; ``StepFailed`` names every one that is missing or broken."""
    found: dict[str, Image.Image] = {}
    problems: list[Problem] = []
    for column in columns:
        path = folder / f"{column['name']}.png"
        try:
            with Image.open(path) as file:
                found[column["name"]] = file.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            problems.append(Problem(str(path), f"cannot be read: {error}", "run the render step again"))
    if problems:
        raise StepFailed(problems)
    return found


def cover_name(recipe: Recipe, columns: list[JSON]) -> str:
    """Return the prompt whose picture is the preview."""
    names = [column["name"] for column in columns]
    if recipe.release.cover and recipe.release.cover not in names:
        what = f'is "{recipe.release.cover}"; the prompts are {", ".join(names)}'
        raise StepFailed(Problem(f"{recipe.name}: release.cover", what))
    return recipe.release.cover or str(names[0])


def write(
    recipe: Recipe, columns: list[JSON], output: Path, pictures: dict[str, Image.Image], said: dict[str, str]
) -> list[str]:
    """Write NAME.png and NAME_grid.png/.webp; return their names.

    Args:
        recipe: whose pictures they are.
        columns: name, label and prompt of each, in order.
        output: the release folder.
        pictures: by prompt name.
        said: ``parameters`` text by prompt name.
    """
    chosen = cover_name(recipe, columns)
    grid.save(enlarged(pictures[chosen]), output / f"{recipe.name}.png", {"parameters": said[chosen]})
    row = [pictures[column["name"]] for column in columns]
    scale = max(1, 256 // max(picture.width for picture in row))
    heads = [grid.Column(column["name"], column.get("label") or column["name"], column["prompt"]) for column in columns]
    title = recipe.release.title or recipe.name
    canvas = grid.compose([recipe.algorithm], heads, f"{title} ({recipe.algorithm})", [[enlarged(p, scale) for p in row]])
    made = {f"{recipe.algorithm} / {head.label}": said[head.name] for head in heads}
    grid.save_both(canvas, output, recipe.name, grid.texts([recipe.algorithm], heads, title, made))
    return [f"{recipe.name}.png", f"{recipe.name}_grid.png", f"{recipe.name}_grid.webp"]


def enlarged(picture: Image.Image, scale: int = 0) -> Image.Image:
    """Return the picture ``scale`` times as large; 0: as often as fits into 512 pixels, at least once."""
    scale = scale or max(1, _ENLARGED_SIDE // max(picture.size))
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.LANCZOS) if scale > 1 else picture
