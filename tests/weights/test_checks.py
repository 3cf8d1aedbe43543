"""One check type for files, releases and machines."""

from __future__ import annotations

import pytest

from orchestrator.weights.checks import Check, CheckStatus, as_json, machine_json, machine_table, overall

PASS, UNKNOWN, WARNING, FAIL = CheckStatus.PASS, CheckStatus.UNKNOWN, CheckStatus.WARNING, CheckStatus.FAIL


def test_the_table_aligns_japanese_and_combining_characters() -> None:
    checks = [
        Check("データセット", PASS, "12枚"),
        Check("gpu", FAIL, "none", "buy one", "one"),
        Check("e\u0301", WARNING, "x"),
    ]
    assert machine_table(checks).splitlines() == [
        "ok       データセット  12枚",
        "warning  e\u0301             x",
        "missing  gpu           none   (expected: one)",
        "         -> buy one",
        "3 checks: 1 error, 1 warning",
    ]


@pytest.mark.parametrize(
    ("statuses", "result"),
    [((), UNKNOWN), ((UNKNOWN, UNKNOWN), UNKNOWN), ((PASS, UNKNOWN), PASS), ((PASS, UNKNOWN, FAIL), FAIL)],
)
def test_one_failure_fails_and_one_pass_passes(statuses: tuple[CheckStatus, ...], result: CheckStatus) -> None:
    assert overall(Check("a", status) for status in statuses) is result


def test_keys_of_both_outputs() -> None:
    check = Check("disk", WARNING, "1 GB", "free some", "2 GB")
    assert machine_json(check) == {"what": "disk", "state": "warning", "found": "1 GB", "wanted": "2 GB", "fix": "free some"}
    assert as_json([Check("file", PASS, "sound")]) == {
        "verdict": "PASS",
        "checks": [{"what": "file", "verdict": "PASS", "detail": "sound"}],
    }
