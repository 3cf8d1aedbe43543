"""Print a dataset check on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table

from orchestrator.dataset.coverage import DIRECTIONS, HEIGHT_NAMES, HEIGHTS
from orchestrator.dataset.lint.findings import Level
from orchestrator.errors import Problem, counted, grouped
from orchestrator.system.terminal import say

if TYPE_CHECKING:
    from orchestrator.dataset.buckets import Prediction
    from orchestrator.dataset.coverage import Coverage
    from orchestrator.dataset.lint import LintReport

_TAGS: Final = 12
_CAPTIONS: Final = 30
_WIDTH: Final = 100


def show(report: LintReport) -> None:
    """Print the numbers, buckets, coverage, tags and findings of a check."""
    prediction = report.inspected.prediction
    say(f"dataset {report.inspected.dataset.name}")
    say(f"  num train images * repeats  {prediction.images_x_repeats}")
    say(f"  num reg images              {prediction.regularization_x_repeats}")
    say(f"  num batches per epoch       {prediction.batches_per_epoch}")
    if report.steps:
        say(f"  num epochs                  {report.epochs}   for {report.steps} steps")
    say()
    _print(_buckets(prediction))
    for coverage in report.inspected.coverage:
        say(f"\n  {coverage.source}, {'upper' if coverage.framing == 'f' else 'full'} body   (m: by a flip)")
        _print(_views(coverage))
    _captions(report)
    tags = report.tags().most_common()
    if tags:
        rest = f", and {len(tags) - _TAGS} more" if len(tags) > _TAGS else ""
        say(f"\n  tags, with repeats: {', '.join(f'{tag} {count}' for tag, count in tags[:_TAGS])}{rest}")
    if report.errors():
        say("\n  (images with an error are left out of these numbers)")
    _print_findings(report)


def _buckets(prediction: Prediction) -> Table:
    table = Table("class", "bucket", box=None)
    for name in ("images", "with repeats", "batches", "crop loss"):
        table.add_column(name, justify="right")
    for bucket in prediction.buckets:
        loss = max(image.fit.crop_loss for image in bucket.images)
        names = "x".join(map(str, bucket.resolution)), "x".join(map(str, bucket.size))
        batches = f"{bucket.batches} of {bucket.batch_size}"
        table.add_row(*names, str(len(bucket.images)), str(bucket.count), batches, f"{loss:.1%}")
    return table


def _views(coverage: Coverage) -> Table:
    table = Table("", box=None)
    for direction in DIRECTIONS:
        table.add_column(direction, justify="right")
    for height, name in zip(HEIGHTS, HEIGHT_NAMES, strict=True):
        views = [(height, direction) for direction in DIRECTIONS]
        cells = (str(coverage.counts.get(view, "m" if view in coverage.mirrored else ".")) for view in views)
        table.add_row(name, *cells)
    return table


def _captions(report: LintReport) -> None:
    """Print the caption of each image and its origin."""
    images = [image for _, image in report.inspected.originals().values()]
    table = Table("image", "caption", "from", box=None)
    for image in images[:_CAPTIONS]:
        table.add_row(image.original.name, image.caption or "", str(image.caption_source))
    say("\n  captions")
    _print(table)
    if len(images) > _CAPTIONS:
        say(f"  … and {len(images) - _CAPTIONS} more;  dataset check RECIPE --json  lists all")


def _print(table: Table) -> None:
    console = Console(width=_WIDTH, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        say(f" {line.rstrip()}")


def _print_findings(report: LintReport) -> None:
    if report.findings:
        say()
    for level in Level:
        problems = [
            Problem(finding.where, finding.what, finding.hint) for finding in report.findings if finding.level is level
        ]
        for problem in grouped(problems):
            say(f"{level.value:<8}{problem.where}  {problem.what}")
            if problem.hint:
                say(f"          {problem.hint}")
    counts = {level: sum(finding.level is level for finding in report.findings) for level in Level}
    say("\n" + ", ".join(counted(count, level.value) for level, count in counts.items()))
