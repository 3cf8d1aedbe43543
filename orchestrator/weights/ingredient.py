"""Inputs of a combination of several LoRA files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, RecipeError

if TYPE_CHECKING:
    from orchestrator.models.block_weights import Given


@dataclass(frozen=True, slots=True)
class Ingredient:
    """Input of a combination: file, ratio, block weights (None for all 1)."""

    path: Path
    ratio: float = 1.0
    block_weights: Given | None = None


def parse(text: str) -> Ingredient:
    """Read ``FILE[:RATIO[:WEIGHTS]]``, as in ``a.safetensors:0.8:FACE``.

    Raises:
        RecipeError: no .safetensors file, or a ratio that is not a number.
    """
    head, dot, tail = text.rpartition(".safetensors")
    if not dot:
        raise RecipeError(Problem(text, "is not a .safetensors file", "write FILE.safetensors:RATIO:WEIGHTS"))
    ratio, _, weights = tail.removeprefix(":").partition(":")
    try:
        return Ingredient(Path(head + dot), float(ratio) if ratio else 1.0, weights or None)
    except ValueError:
        raise RecipeError(Problem(text, f"{ratio!r} is not a ratio", "write FILE.safetensors:RATIO:WEIGHTS")) from None
