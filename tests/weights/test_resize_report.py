"""Lines about a resize."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.weights.io.writer import Hashes
from orchestrator.weights.resize_report import Resized, ResizeReport

REPORT = ResizeReport(
    modules=tuple(Resized(f"m{rank}", "IN01", 16, rank, 0.6, 1.0, "gram64") for rank in (8, 2, 4)),
    pruned=0,
    passed=0,
    converted={},
    bytes_before=2000,
    bytes_after=1000,
    retained=0.6,
    threshold=None,
    rebuilt=None,
    seconds=2.6,
    hashes=Hashes("0123", "01"),
)
RANKS = "ranks 2..8, median 4, in 3 modules"
NORM = "60.0000% of the Frobenius norm retained (relative error 0.8)"
PLAIN = ["2,000 -> 1,000 tensor bytes", RANKS, NORM]
LARGER = ["2,000 -> 3,000 tensor bytes", RANKS, NORM]
WHOLE = "their deltas have a full rank; a larger rank or ratio keeps more"
CUT = "a smaller ratio or --new-rank cuts more"


@pytest.mark.parametrize(
    ("report", "lines"),
    [
        (REPORT, PLAIN),
        (replace(REPORT, modules=()), [PLAIN[0], "ranks 0..0, median 0, in 0 modules", NORM]),
        (replace(REPORT, bytes_after=2000), ["2,000 -> 2,000 tensor bytes", *PLAIN[1:]]),
        (replace(REPORT, bytes_after=3000), [*LARGER, f"1.5 times as large as before: no rank was cut; {CUT}"]),
        (
            replace(REPORT, bytes_after=3000, converted={"loha": 2}),
            [
                *LARGER,
                f"1.5 times as large as before: its own family needs fewer numbers than a LoRA; {CUT}",
                "2 modules converted from loha to lora",
            ],
        ),
        (replace(REPORT, threshold=12.3456789), [*PLAIN, "sv_ratio 12.3457 fits the size"]),
        (
            replace(REPORT, earlier=("fixed 8", "sv_ratio 4")),
            [*PLAIN, "the file was resized before (fixed 8; sv_ratio 4): the error is relative to that file"],
        ),
        (
            replace(REPORT, rebuilt=0.125),
            [
                *PLAIN,
                f"rebuilt from the base in 3 s with a relative error of 0.125: {WHOLE}",
            ],
        ),
        (replace(REPORT, passed=2), [*PLAIN, "2 modules with norms or biases alone: without a rank, unchanged"]),
        (replace(REPORT, pruned=3), [*PLAIN, "3 zero modules pruned"]),
    ],
)
def test_the_table_has_a_line_for_each_remark(report: ResizeReport, lines: list[str]) -> None:
    assert report.table() == lines


@pytest.mark.parametrize(("retained", "error"), [(1.0, 0.0), (1.0000001, 0.0), (0.6, 0.8), (0.0, 1.0)])
def test_the_error_is_the_rest_of_the_norm(retained: float, error: float) -> None:
    assert replace(REPORT, retained=retained).relative_error == pytest.approx(error)
