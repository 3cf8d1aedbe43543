"""Lines about an extraction."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.weights.extract_report import ExtractReport
from orchestrator.weights.io.writer import Hashes

REPORT = ExtractReport(
    architecture="sd1",
    ranks={"c": 8, "a": 4, "b": 6},
    retained=0.6,
    equal=0,
    left_out=(),
    text_encoders=True,
    tensor_bytes=1234567,
    seconds=1.6,
    hashes=Hashes("0123456789abcdef", "01234567"),
)
ALWAYS = [
    "SD1: 3 modules, 1,234,567 tensor bytes",
    "ranks 4..8, median 6",
    "60.00% of the difference's norm (relative error 0.8), 2 s",
]


@pytest.mark.parametrize(
    ("report", "more"),
    [
        (REPORT, []),
        (replace(REPORT, equal=2), ["2 layers are equal in both: without a module"]),
        (replace(REPORT, text_encoders=False), ["no text encoder: the files do not both hold one that differs"]),
        (replace(REPORT, left_out=("x", "y", "z")), ["left out, though they differ: x, y, z (3 in all)"]),
        (replace(REPORT, left_out=("x", "y", "z", "w")), ["left out, though they differ: x, y, z … (4 in all)"]),
    ],
)
def test_the_table_has_a_line_for_each_remark(report: ExtractReport, more: list[str]) -> None:
    assert report.table() == [*ALWAYS, *more, "model hash 0123456789ab"]


def test_more_than_the_whole_norm_is_no_error() -> None:
    """Rounding may leave a share slightly above 1."""
    assert replace(REPORT, retained=1.0000001).relative_error == 0
