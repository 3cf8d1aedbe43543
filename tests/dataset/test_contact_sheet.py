"""The contact sheet as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataset_cases import check
from orchestrator.dataset import contact_sheet

if TYPE_CHECKING:
    from pathlib import Path


def test_the_contact_sheet_shows_the_training_images(good: Path) -> None:
    report = check(good, sizes=[64], batch_size={"default": 2}, flip_aug=True)
    page = contact_sheet.page(report)
    assert page.count("<li title=") == page.count('<i role="img"') == 6
    assert "64x64 <small>class 64x64: 3 with repeats, 2 batches of 2, the last lacks 1.</small>" in page
    assert "krnk, from above, upper body" in page
    assert str(good) not in page
    assert "http" not in page
