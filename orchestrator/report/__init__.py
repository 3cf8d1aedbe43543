"""Write one offline HTML page about all recipes and runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.report import block_stats, collect, page
from orchestrator.system import files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.recipe.loader import Loaded

__all__ = ["write"]


def write(
    root: Path,
    recipes: Sequence[Loaded],
    out: Path,
    *,
    plan: dict[str, Any] | None = None,
    measure: bool = True,
    live: bool = False,
) -> Path:
    """Write the page to ``out``, and its images to ``img`` beside it.

    Args:
        root: the store (runs/). It is only read, except for block statistics in root/report/measured.
        recipes: the recipes to show, in this order within their subjects.
        out: the HTML file.
        plan: the output of ``plan --json``, for keys, reasons and predicted sizes. Without it, the newest record of each step
            counts.
        measure: measure weight files that were not measured before, in one child process.
        live: let the page fetch itself every few seconds (see ``live``).

    Raises:
        OSError: the page cannot be written. Files that cannot be read are left out of the page.
    """
    data = collect.collect(root, recipes, plan)
    if measure:
        block_stats.complete(root, data)
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(out, page.render(page.context(data, out.parent / "img", live=live)))
    return out
