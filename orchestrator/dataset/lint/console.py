"""A check, and a build's progress, for people at a terminal."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from orchestrator.dataset.coverage import DIRECTIONS, HEIGHTS
from orchestrator.dataset.lint.findings import Level
from orchestrator.errors import Problem, grouped
from orchestrator.system.terminal import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.dataset.lint import Report
    from orchestrator.recipe import Dataset

_TAGS: Final = 12


@contextmanager
def bar(label: str) -> Iterator[Callable[[int, int, str], None]]:
    """Give a report function: a progress bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _done, _total, _note: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total, _note: progress.update(task, completed=done, total=total)


def show(dataset: Dataset, report: Report) -> None:
    """Print a check: numbers, buckets, coverage, findings."""
    prediction = report.inspected.prediction
    say(f"dataset {dataset.name}")
    say(f"  num train images * repeats  {prediction.images_x_repeats}")
    say(f"  num reg images              {prediction.regularization_x_repeats}")
    say(f"  num batches per epoch       {prediction.batches_per_epoch}")
    if report.steps:
        say(f"  num epochs                  {report.epochs}   for {report.steps} steps")
    say("\n  class        bucket       pictures  with repeats  batches  crop loss")
    for bucket in prediction.buckets:
        loss = max(one.fit.crop_loss for one in bucket.placed)
        names = "x".join(map(str, bucket.resolution)), "x".join(map(str, bucket.size))
        of = f"{bucket.batches} of {bucket.batch_size}"
        say(f"  {names[0]:<11}  {names[1]:<11}  {len(bucket.placed):>8}  {bucket.count:>12}  {of:>7}  {loss:>8.1%}")
    for one in report.inspected.coverage:
        say(
            f"\n  {one.source}, {'upper' if one.framing == 'f' else 'full'} body      {'  '.join(DIRECTIONS)}   (m: by a flip)"
        )
        for height, name in zip(HEIGHTS, ("level", "from above", "from below"), strict=True):
            cells = (str(one.counts.get((height, way), "m" if (height, way) in one.mirrored else ".")) for way in DIRECTIONS)
            say(f"    {name:<20}{'  '.join(cells)}")
    tags = report.tags().most_common()
    if tags:
        rest = f", and {len(tags) - _TAGS} more" if len(tags) > _TAGS else ""
        say(f"\n  tags, with repeats: {', '.join(f'{tag} {count}' for tag, count in tags[:_TAGS])}{rest}")
    if report.errors():
        say("\n  (what has an error is left out of these numbers)")
    if report.findings:
        say()
    for level in Level:
        found = [Problem(one.where, one.what, one.hint) for one in report.findings if one.level is level]
        for problem in grouped(found):
            say(f"{level.value:<8}{problem.where}  {problem.what}")
            if problem.hint:
                say(f"          {problem.hint}")
    counts = {level: sum(finding.level is level for finding in report.findings) for level in Level}
    say("\n" + ", ".join(f"{count} {level.value}{'s' if count != 1 else ''}" for level, count in counts.items()))
