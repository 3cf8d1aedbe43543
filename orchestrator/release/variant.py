"""A variant of a recipe: one value of every axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.recipe import Recipe

STEP: Final = "step"
"""The axis of saved steps."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis and its values as text.

    Its name is step, sv_ratio, block_weights or multiplier.
    """

    name: str
    values: tuple[str, ...]
    order: str = ""
    """Order of another tool that lists of block weights have."""


@dataclass(frozen=True, slots=True)
class RecipeVariant:
    """A recipe with one value of every axis.

    Folder and size (bytes) are set after rendering.
    """

    values: tuple[str, ...]
    recipe: Recipe
    folder: Path | None = None
    size: int = 0


def label(axes: Sequence[Axis], values: Sequence[str]) -> str:
    """Return the label of a variant, as sv_ratio 16, multiplier 0.8."""
    return ", ".join(
        f"{axis.name.replace('_', ' ') if axis.name != 'sv_ratio' else axis.name} {value}"
        for axis, value in zip(axes, values, strict=True)
    )
