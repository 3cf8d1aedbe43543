"""Differences between two builds of a release."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from orchestrator.release.bundle_reader import manifest_of, member_of, opened, read_sums, table_of
from orchestrator.weights.checks import Check, CheckStatus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def differences(first: Path, second: Path) -> list[Check]:
    """Compare two builds of a release, causes first.

    Causes come before effects. Different weights are UNKNOWN, not FAIL, because a training is not reproducible to the bit.
    """
    with opened(first) as left_folder, opened(second) as right_folder:
        mine, other = manifest_of(left_folder), manifest_of(right_folder)
        sums = (read_sums(left_folder), read_sums(right_folder))
    checks: list[Check] = []
    names = (
        [str(mine.get("name"))]
        if mine.get("kind") == "recipe"
        else sorted({*table_of(mine, "members"), *table_of(other, "members")})
    )
    for name in names:
        left, right = member_of(mine, name), member_of(other, name)
        if not left or not right:
            checks.append(Check(f"{name}", CheckStatus.FAIL, "is in only one of the builds"))
            continue
        for part in ("recipe", "lock"):
            unlike = sorted(_unlike(left.get(part, {}), right.get(part, {})))
            verdict = CheckStatus.UNKNOWN if unlike else CheckStatus.PASS
            checks.append(Check(f"{name}: same {part}", verdict, "; ".join(unlike[:12])))
        hashed = [str(table_of(table_of(side, "facts"), "file").get("model_hash", "")) for side in (left, right)]
        same = hashed[0] == hashed[1]
        checks.append(
            Check(
                f"{name}: same weights",
                CheckStatus.PASS if same else CheckStatus.UNKNOWN,
                "" if same else " and ".join(h[:12] for h in hashed),
            )
        )
    unlike = sorted(name for name in {*sums[0], *sums[1]} if sums[0].get(name) != sums[1].get(name))
    checks.append(Check("same files", CheckStatus.UNKNOWN if unlike else CheckStatus.PASS, ", ".join(unlike)))
    return checks


def _unlike(left: Any, right: Any, where: str = "") -> Iterator[str]:
    """Yield "a.b: old -> new" for every different value."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in {*left, *right}:
            yield from _unlike(left.get(key), right.get(key), f"{where}.{key}" if where else str(key))
    elif left != right:
        yield f"{where}: {json.dumps(left, ensure_ascii=False)[:60]} -> {json.dumps(right, ensure_ascii=False)[:60]}"
