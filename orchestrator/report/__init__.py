"""One HTML page about all recipes and runs, made from what lies on the disk: works offline, shows to a friend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.recipe.loader import Loaded

__all__ = ["write"]


def write(
    root: Path, recipes: Sequence[Loaded], out: Path, *, plan: dict[str, Any] | None = None, measure: bool = True
) -> Path:
    """Write the page to ``out`` and its pictures to the folder ``img`` beside it; return ``out``.

    Args:
        root: the store (runs/); it is only read, but for remembered measures of weights in root/report/measured.
        recipes: what to show, in this order within their subjects.
        out: the HTML file.
        plan: what ``plan --json`` prints, for keys, reasons and predicted sizes; None: the newest record of each step counts.
        measure: measure weight files that were not measured before, in one child process.

    Raises:
        OSError: the page cannot be written. What cannot be read is left out of the page.
    """
    from orchestrator.report import block_stats, collect, page  # noqa: PLC0415 - Pillow and templates only when a page is made

    found = collect.gather(root, recipes, plan)
    if measure:
        block_stats.complete(root, found)
    out.parent.mkdir(parents=True, exist_ok=True)
    text = page.render(page.described(found, out.parent / "img"))
    draft = out.with_name(f".{out.name}.part")
    draft.write_text(text, "utf-8")
    draft.replace(out)
    return out
