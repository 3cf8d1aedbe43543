"""Images of one release: preview and grid, with A1111's text in both."""

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
    """Return the rendered images by prompt name.

    Raises:
        StepFailed: every image that is missing or broken.
    """
    images: dict[str, Image.Image] = {}
    problems: list[Problem] = []
    for column in columns:
        path = folder / f"{column['name']}.png"
        try:
            with Image.open(path) as file:
                images[column["name"]] = file.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            problems.append(Problem(str(path), f"cannot be read: {error}", "run the render step again"))
    if problems:
        raise StepFailed(problems)
    return images


def cover_name(recipe: Recipe, columns: list[JSON]) -> str:
    """Return the name of the preview's prompt.

    Raises:
        StepFailed: release.cover is not a prompt.
    """
    names = [column["name"] for column in columns]
    if recipe.release.cover and recipe.release.cover not in names:
        what = f'is "{recipe.release.cover}"; the prompts are {", ".join(names)}'
        raise StepFailed(Problem(f"{recipe.name}: release.cover", what))
    return recipe.release.cover or str(names[0])


def write(
    recipe: Recipe, columns: list[JSON], output: Path, images: dict[str, Image.Image], parameters: dict[str, str]
) -> list[str]:
    """Write NAME.png and NAME_grid.png/.webp, and return their names.

    Args:
        recipe: the recipe of the images.
        columns: name, label and prompt of each image, in order.
        output: the release folder.
        images: images by prompt name.
        parameters: A1111's texts by prompt name.
    """
    cover = cover_name(recipe, columns)
    grid.save(enlarged(images[cover]), output / f"{recipe.name}.png", {"parameters": parameters[cover]})
    row = [images[column["name"]] for column in columns]
    scale = max(1, 256 // max(image.width for image in row))
    heads = [grid.GridColumn(column["name"], column.get("label") or column["name"], column["prompt"]) for column in columns]
    title = recipe.release.title or recipe.name
    canvas = grid.compose(
        [recipe.algorithm], heads, f"{title} ({recipe.algorithm})", [[enlarged(image, scale) for image in row]]
    )
    by_cell = {f"{recipe.algorithm} / {head.label}": parameters[head.name] for head in heads}
    grid.save_both(canvas, output, recipe.name, grid.texts([recipe.algorithm], heads, title, by_cell))
    return [f"{recipe.name}.png", f"{recipe.name}_grid.png", f"{recipe.name}_grid.webp"]


def enlarged(image: Image.Image, scale: int = 0) -> Image.Image:
    """Return an image ``scale`` times as large.

    0 means the largest factor for 512 pixels.
    """
    scale = scale or max(1, _ENLARGED_SIDE // max(image.size))
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.LANCZOS) if scale > 1 else image
