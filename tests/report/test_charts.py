"""Charts as SVG, and numbers as text."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from orchestrator.report import charts, tables

BAR = {"name": "<a>", "kind": "train", "waited": 0.0}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (0, 1000, [0, 250, 500, 750, 1000]), (5, 5, [5]), (0.08, 0.19, [0.1, 0.15])],
)
def test_axes_have_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert charts.ticks(low, high) == pytest.approx(expected)


def test_charts_are_well_formed_and_stay_in_their_box() -> None:
    chart = charts.lines([charts.Line("a<b", "a0", [(1, 0.5), (2, 0.1), (3, 0.3)])], 'says "so"')
    tree = ET.fromstring(chart)  # noqa: S314
    _, _, width, height = (float(part) for part in tree.attrib["viewBox"].split())
    for part in tree.iter("polyline"):
        for pair in part.attrib["points"].split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height
    assert tree.attrib["aria-label"] == 'says "so"'
    for empty in (charts.lines([], "x"), charts.timeline([], "x"), charts.spectra([], "x"), charts.spark([], "a0")):
        assert empty == ""
    for single in (
        charts.lines([charts.Line("a", "a0", [(1, 0.0)])], "x"),
        charts.timeline([{"name": "c", "busy": 1.0, "bars": [dict(BAR, start=0.0, seconds=0.0)]}], 'says "so"'),
    ):
        ET.fromstring(single)  # noqa: S314


def test_times_and_sizes_read_well() -> None:
    assert [charts.clock(value) for value in (0, 0.7, 45, 125, 12000)] == ["0 s", "0.7 s", "45 s", "2 min", "3 h 20 min"]
    assert [tables.size(value) for value in (12, 2048, 212845244, 3 * 2**30)] == ["12 B", "2.0 KiB", "203.0 MiB", "3.0 GiB"]
