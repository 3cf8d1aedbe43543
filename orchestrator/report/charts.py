"""Draw charts as SVG.

Each needs neither library nor script, is readable in light and dark, and has a text that describes it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SHADES = 12
_ROUND = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800)  # seconds between marks
_WIDTH, _WIDE, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 1120, 52, 12, 10, 26


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: label, colour class, and points (x, y)."""

    label: str
    colour: str
    points: Sequence[tuple[float, float]]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return about ``count`` round numbers from ``low`` to ``high``."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def short(value: float | Sequence[float]) -> str:
    """Return a number for an axis, or several: 0.05, 1e-4, 1200."""
    if not isinstance(value, int | float):
        return ", ".join(map(short, value))
    if value == 0:
        return "0"
    if abs(value) < 0.001:
        digits, _, power = f"{value:.1e}".partition("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:.4g}"


def lines(
    curves: Sequence[Line], label: str, size: tuple[int, int] = (380, 170), *, zero: bool = False, unit: str = "step"
) -> Markup:
    """Return a line chart, empty without points.

    Args:
        curves: all on the same axes.
        label: a sentence that describes the chart, for screen readers.
        size: width and height of the drawing; letters are 13 high.
        zero: begin the vertical axis at 0.
        unit: name of the horizontal axis.
    """
    points = [point for curve in curves for point in curve.points]
    if not points:
        return Markup()
    width, height = size
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    pad = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low, high = (0.0 if zero else low - pad), high + pad
    low = max(low, 0.0) if min(y for _, y in points) >= 0 else low

    def x_at(value: float) -> float:
        return _LEFT + (value - left) / ((right - left) or 1) * (width - _LEFT - _RIGHT)

    def y_at(value: float) -> float:
        return _TOP + (high - value) / ((high - low) or 1) * (height - _TOP - _BOTTOM)

    parts = []
    for value in ticks(low, high, 4 if height > 120 else 2):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y_at(value):.1f}" y2="{y_at(value):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y_at(value) + 4:.1f}" text-anchor="end">{short(value)}</text>')
    parts += [
        f'<text x="{x_at(value):.1f}" y="{height - 8}" text-anchor="middle">{short(value)}</text>'
        for value in ticks(left, right, width // 90)
        if value == int(value)  # steps are whole
    ]
    for curve in curves:
        path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in curve.points)
        parts.append(f'<polyline class="curve {curve.colour}" points="{path}"/>')
        if curve.points:
            x, y = curve.points[-1]
            parts.append(f'<circle class="dot {curve.colour}" cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="3"/>')
    data = {
        "box": [_LEFT, _TOP, width - _RIGHT, height - _BOTTOM],
        "x": [left, right],
        "unit": unit,
        "curves": [{"label": curve.label, "points": [[x, _round(y)] for x, y in curve.points]} for curve in curves],
    }
    text = escape(json.dumps(data, separators=(",", ":")))
    return Markup(  # noqa: S704 - every text in it is escaped
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}" data-chart="{text}">'
        f"{''.join(parts)}</svg>"
    )


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def spark(points: Sequence[tuple[float, float]], colour: str) -> Markup:
    """Return a small curve without axes, beside a number that has its value."""
    if len(points) < 2:
        return Markup()
    left, right = points[0][0], points[-1][0]
    low, high = min(y for _, y in points), max(y for _, y in points)
    path = " ".join(
        f"{(x - left) / ((right - left) or 1) * 100:.1f},{2 + (high - y) / ((high - low) or 1) * 20:.1f}" for x, y in points
    )
    return Markup(  # noqa: S704 - numbers only
        f'<svg class="spark" viewBox="0 0 100 24" preserveAspectRatio="none" aria-hidden="true">'
        f'<polyline class="curve {escape(colour)}" points="{path}"/></svg>'
    )


def timeline(rows: Sequence[dict[str, Any]], label: str) -> Markup:
    """Return lanes (see ``trace.rows``) over time, one bar per step."""
    if not rows:
        return Markup()
    whole = max(bar["start"] + bar["seconds"] for row in rows for bar in row["bars"]) or 1.0
    row_height, left = 30, 118
    height = len(rows) * row_height + 30

    def x_at(seconds: float) -> float:
        return left + max(0.0, seconds) / whole * (_WIDE - left - _RIGHT)

    parts = []
    step = next((step for step in _ROUND if whole / step <= 10), _ROUND[-1] * math.ceil(whole / _ROUND[-1] / 10))
    for value in range(0, int(whole) + 1, step):
        parts.append(f'<line class="grid" x1="{x_at(value):.1f}" x2="{x_at(value):.1f}" y1="4" y2="{height - 24}"/>')
        mark = f"{value // 3600}:{value // 60 % 60:02}" if step >= 60 else f"{value // 60}:{value % 60:02}"
        unit = (" h" if step >= 60 else " min") if not value else ""
        parts.append(f'<text x="{x_at(value):.1f}" y="{height - 8}" text-anchor="middle">{mark}{unit}</text>')
    for number, row in enumerate(rows):
        y = number * row_height + 6
        name = f"{row['name']} {row['busy']:.0%}"
        parts.append(f'<text x="{left - 8}" y="{y + 16}" text-anchor="end">{escape(name)}</text>')
        for bar in row["bars"]:
            start, end = x_at(bar["start"]), x_at(bar["start"] + bar["seconds"])
            waited = f", waited {clock(bar['waited'])}" if bar["waited"] >= 1 else ""
            words = f"{bar['name']}: {clock(bar['seconds'])}{waited}"
            parts.append(
                f'<rect class="span k-{escape(bar["kind"])}" x="{start:.1f}" y="{y}" width="{max(1.5, end - start - 1):.1f}" '
                f'height="{row_height - 10}" rx="3"><title>{escape(words)}</title></rect>'
            )
    return Markup(  # noqa: S704 - every text in it is escaped
        f'<svg class="chart lanes" viewBox="0 0 {_WIDE} {height}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def spectra(blocks: Iterable[tuple[str, Sequence[float]]], label: str, floor: float = -2.5) -> Markup:
    """Return a map of singular values: one column per block.

    The largest is on top; small ones are dark.

    Args:
        blocks: name and log10 of the singular values over the first; empty for blocks without any.
        label: a sentence that describes the map.
        floor: log10 of the share that counts as zero.
    """
    columns = list(blocks)
    most = max((len(values) for _, values in columns), default=0)
    if not most:
        return Markup()
    wide, tall = _WIDTH / len(columns), 7
    shades: dict[int, list[str]] = {}  # one path per shade: hundreds of rectangles would be most of the page's bytes
    for number, (_, values) in enumerate(columns):
        for row, value in enumerate(values):
            shade = max(1, round(_SHADES * (1 - max(value, floor) / floor)))
            shades.setdefault(shade, []).append(
                f"M{number * wide + 1:.1f} {row * tall}h{wide - 2:.1f}v{tall - 1}h-{wide - 2:.1f}z"
            )
    parts = [
        f'<path class="cell" fill-opacity="{shade / _SHADES:.2f}" d="{"".join(path)}"/>'
        for shade, path in sorted(shades.items())
    ]
    return Markup(  # noqa: S704 - every text in it is escaped
        f'<svg class="chart map" viewBox="0 0 {_WIDTH} {most * tall}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def clock(seconds: float) -> str:
    """Return a length of time: 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds / 60)
    return f"{whole} min" if whole < 90 else f"{whole // 60} h {whole % 60:02} min"
