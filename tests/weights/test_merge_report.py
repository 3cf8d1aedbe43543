"""Lines about a merge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.models import block_weights
from orchestrator.models.bases import sd1
from orchestrator.weights.io.writer import Hashes
from orchestrator.weights.merge_report import MergeReport

if TYPE_CHECKING:
    from orchestrator.models.registry import ArchitectureName

ONES = ",".join(["1"] * 26)
LAST = "model hash 0123456789ab"
KEPT = "to keep it, convert IN MID --save-precision fp32, then merge MID"
UNMAPPED = "unmapped 1 (conv_out, time embedding: outside all blocks): as trained; --unmapped 0 removes them"


def report(given: str = ONES, architecture: ArchitectureName = "sd1", *, unmapped: float = 1.0, **fields: Any) -> MergeReport:
    weights = block_weights.parse(given, architecture, unmapped=unmapped)
    table: dict[str, Any] = {
        "preset": None,
        "modules": {"IN01": 7},
        "outside": 2,
        "pruned": 0,
        "rounded": {},
        "non_finite": (),
    }
    return MergeReport(weights, **(table | {"hashes": Hashes("0123456789abcdef", "01234567")} | fields))


def test_every_block_has_a_row() -> None:
    rows = report().table()
    assert [row.split()[0] for row in rows[:26]] == list(sd1.BLOCKS)
    assert [row.split() for row in rows[1:3]] == [["IN00", "1", "0", "modules"], ["IN01", "1", "7", "modules"]]
    assert rows[26].split() == ["other", "1", "2", "modules", "unmapped"]
    assert rows[27:] == [UNMAPPED, f"block weights of no preset; {LAST}"]


@pytest.mark.parametrize(
    ("made", "lines"),
    [
        (report(preset="FACE"), [f"block weights FACE; {LAST}"]),
        (report(pruned=4), [f"block weights of no preset; {LAST}", "4 modules pruned"]),
        (
            report(rounded={"a": 0.02, "b": 0.5}),
            [
                f"block weights of no preset; {LAST}",
                f"2 modules lose more than 1 % to the rounding of F16, b 50%; {KEPT}",
            ],
        ),
        (
            report(non_finite=("a",)),
            [
                f"block weights of no preset; {LAST}",
                "NaN or infinity in 1 tensor: a; an earlier checkpoint may be sound",
            ],
        ),
    ],
)
def test_the_table_has_a_line_for_each_remark(made: MergeReport, lines: list[str]) -> None:
    assert made.table()[28:] == lines


@pytest.mark.parametrize(
    ("unmapped", "meaning"),
    [
        (0.0, "removed; --unmapped 1, the default, leaves them as trained"),
        (0.5, "the default, 1, leaves them as trained; 0 removes them"),
    ],
)
def test_the_weight_of_modules_outside_all_blocks_is_explained(unmapped: float, meaning: str) -> None:
    line = report(unmapped=unmapped).table()[27]
    assert line == f"unmapped {unmapped:g} (conv_out, time embedding: outside all blocks): {meaning}"


def test_a_list_of_names_is_named() -> None:
    assert report("B00=0.5", "anima").table()[-1] == f"block weights BASE=1,B00=0.5,B01-B27=1; {LAST}"
