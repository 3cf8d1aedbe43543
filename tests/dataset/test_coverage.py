"""Coverage of views."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataset_cases import check

if TYPE_CHECKING:
    from pathlib import Path


def test_coverage_counts_flips_as_views(good: Path) -> None:
    with_flips, without = (check(good, flip_aug=flips).inspected.coverage[0] for flips in (True, False))
    assert with_flips.counts == {("0", "0"): 1, ("0", "1"): 1, ("1", "0"): 1}
    assert set(without.missing()) - set(with_flips.missing()) == {"f07"}
    assert len(without.missing()) == 24 - 3
    assert with_flips.as_json()["heights_x_directions"][0] == [1, 1, 0, 0, 0, 0, 0, 0]
