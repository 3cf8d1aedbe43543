"""Grids of variants, and their list for the slider of the report."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from orchestrator.release import grid
from orchestrator.release.a1111 import parameters_by_prompt
from orchestrator.release.variant import label
from orchestrator.system.files import write_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.recipe import Recipe
    from orchestrator.release.variant import Axis, RecipeVariant


def write(recipe: Recipe, axes: Sequence[Axis], rendered: Sequence[RecipeVariant], folder: Path, root: Path) -> list[Path]:
    """Write the grids of variants and AXES.json, and return the PNG files.

    Args:
        recipe: the varied recipe.
        axes: one to three axes.
        rendered: every combination of their values.
        folder: runs/RECIPE/variants.
        root: the store, which AXES.json names folders below.
    """
    stem = "-".join(axis.name for axis in axes)
    files = (
        _by_prompt(recipe, axes, rendered, folder, stem) if len(axes) == 1 else _crossed(recipe, axes, rendered, folder, stem)
    )
    listing = {
        "axes": [axis.name for axis in axes],
        "variants": [
            {
                "label": label(axes, variant.values),
                "bytes": variant.size,
                "folder": str(variant.folder.relative_to(root)) if variant.folder else "",
            }
            for variant in rendered
        ],
        "grids": [file.name for file in files],
    }
    write_json(folder / f"{stem}.json", listing)
    return files


def _by_prompt(recipe: Recipe, axes: Sequence[Axis], rendered: Sequence[RecipeVariant], folder: Path, stem: str) -> list[Path]:
    rows = [
        grid.GridRow(
            f"{label(axes, variant.values)} ({variant.size / 2**20:.1f}\N{NO-BREAK SPACE}MiB)",
            variant.folder,
            parameters_by_prompt(variant.recipe),
        )
        for variant in rendered
        if variant.folder is not None
    ]
    files = grid.write(folder, stem, rows, _columns(recipe), title=recipe.name, scale=recipe.render.enlargement)
    return files[:1]


def _crossed(recipe: Recipe, axes: Sequence[Axis], rendered: Sequence[RecipeVariant], folder: Path, stem: str) -> list[Path]:
    """Write a grid a prompt: the first axis downwards, the others across."""
    down, *across = axes
    heads = list(itertools.product(*(axis.values for axis in across)))
    files: list[Path] = []
    for column in _columns(recipe):
        cells = {
            variant.values: (variant.folder / f"{column.name}.png", parameters_by_prompt(variant.recipe)[column.name])
            for variant in rendered
            if variant.folder is not None
        }
        rows = [label([down], [value]) for value in down.values]
        columns = [grid.GridColumn("-".join(values), label(across, values), column.prompt) for values in heads]
        paths = [[cells[row, *values] for values in heads] for row in down.values]
        title = f"{recipe.name}, {column.label}"
        files += grid.write_cells(
            folder, f"{stem}-{column.name}", rows, columns, paths, title=title, scale=recipe.render.enlargement
        )[:1]
    return files


def _columns(recipe: Recipe) -> list[grid.GridColumn]:
    return [grid.GridColumn(**column) for column in recipe.columns()]
