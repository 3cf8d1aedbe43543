"""What the verbs of weight surgery share on the command line: arguments, a progress bar, how a report is shown."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.errors import Problem, RecipeError
from orchestrator.system.terminal import print_json, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

In = Annotated[Path, typer.Argument(metavar="IN", help="A LoRA file (.safetensors).")]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="Where to write the result.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Allow the output to be the input.")]
RankRule = Annotated[str, typer.Option(help="2023 (as the release) or sd-scripts-0.10 (one more in every layer).")]
Precision = Annotated[str, typer.Option(help="fp16, bf16 or fp32.")]


def rule(text: str) -> Any:
    """Return the rank rule of that name; RecipeError for any other."""
    if text not in {"2023", "sd-scripts-0.10"}:
        raise RecipeError(Problem("--rank-rule", f"{text!r} is neither 2023 nor sd-scripts-0.10"))
    return text


def show(report: Any, *, json: bool) -> None:
    """Print a report's lines, or its JSON."""
    if json:
        print_json(report.to_json())
    else:
        say("\n".join(report.table()))


@contextlib.contextmanager
def progress(verb: str) -> Iterator[Callable[[int, int, str], None] | None]:
    """Show a bar on stderr if that is a terminal; yields what the work calls with (done, total, note)."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(verb, total=None)
        yield lambda done, total, note: bar.update(task, completed=done, total=total, description=f"{verb} {note}")
