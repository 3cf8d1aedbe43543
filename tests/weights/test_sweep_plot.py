"""The picture of a sweep: sizes to the right, shares upwards."""

from __future__ import annotations

import re

from orchestrator.weights import sweep_plot
from orchestrator.weights.sweep import Row, Sweep


def row(ratio: float, size: int, retained: float, **blocks: float) -> Row:
    return Row(ratio, "FACE", size, retained, blocks, 1, 2, 3, None)


def test_every_variant_is_a_circle_and_every_block_a_line() -> None:
    """The axes span 528 by 288 pixels from (56, 344), the bytes up to the largest, the shares from the lowest to 1."""
    rows = (row(8, 2 << 20, 1.0, IN01=0.75, MID=1.0), row(4, 1 << 20, 0.75, IN01=0.5, MID=1.0))
    lines = list(sweep_plot.lines(Sweep(4 << 20, rows)))
    assert lines[0].startswith('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 400"')
    assert [text for line in lines for text in re.findall("<text[^>]*>([^<]*)</text>", line)] == [
        "tensor bytes, up to 2.0 MiB", "Frobenius norm retained, 50.000% to 100 %", "4", "8",
    ]  # fmt: skip
    assert re.findall(r'points="([^"]*)"', "".join(lines)) == [
        "320.0,344.0 584.0,200.0",
        "320.0,56.0 584.0,56.0",
        "320.0,200.0 584.0,56.0",
    ]
    assert re.findall(r"<title>(\w+)</title>", "".join(lines)) == ["IN01", "MID"]
    assert re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', "".join(lines)) == [("320.0", "200.0"), ("584.0", "56.0")]
    assert re.findall(r'<text x="([\d.]+)" y="([\d.]+)">\d', "".join(lines)) == [("320.0", "218.0"), ("584.0", "74.0")]
    assert lines[-1] == "</svg>"


def test_variants_that_lose_nothing_lie_on_the_upper_edge() -> None:
    lines = "".join(sweep_plot.lines(Sweep(9, (row(8, 9, 1.0, MID=1.0),))))
    assert re.findall(r'points="([^"]*)"', lines) == ["584.0,56.0", "584.0,56.0"]
    assert "Frobenius norm retained, 99.900% to 100 %" in lines
