"""The curve of a training: its readings by step, thinned for a drawing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.run.progress_log import readings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

POINTS = 240
"""Most points of a drawn curve. The first, the last and the extremes stay."""


@dataclass(frozen=True, slots=True)
class Point:
    """One reading of a training.

    Step, mean loss, learning rate, this step's own loss, the text encoder's rate, loss on held-out images.
    """

    step: int
    loss: float | None
    rate: float | None
    now: float | None = None
    text_rate: float | None = None
    validation: float | None = None


def read_curve(path: Path) -> tuple[Point, ...]:
    """Return the readings of a training by step, thinned to ``POINTS``.

    A training that was resumed has some steps twice; the later reading counts.
    """
    points: dict[int, Point] = {}
    for line in readings(path):
        step = line.get("done")
        values = [_number(line.get(name)) for name in ("loss", "lr", "current_loss", "lr_text_encoder", "validation_loss")]
        if isinstance(step, int) and step > 0 and any(value is not None for value in values[:2]):
            point = points.get(step)
            before = (
                (point.loss, point.rate, point.now, point.text_rate, point.validation) if point is not None else (None,) * 5
            )
            points[step] = Point(step, *(old if new is None else new for new, old in zip(values, before, strict=True)))
    return thinned([points[step] for step in sorted(points)])


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def thinned(points: Sequence[Point], most: int = POINTS) -> tuple[Point, ...]:
    """Return about ``most`` points of a curve.

    Both ends stay, every validation, and the lowest and highest loss of every stretch.
    """
    if len(points) <= most:
        return tuple(points)
    kept = {0, len(points) - 1} | {index for index, point in enumerate(points) if point.validation is not None}
    stretch = len(points) / (most / 2 - 1)
    start = 0.0
    while start < len(points):
        part = range(int(start), min(len(points), int(start + stretch)))
        if part:
            kept.add(min(part, key=lambda index: points[index].loss or 0.0))
            kept.add(max(part, key=lambda index: points[index].loss or 0.0))
        start += stretch
    return tuple(points[index] for index in sorted(kept))
