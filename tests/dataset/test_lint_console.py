"""A dataset check on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataset_cases import check, face, texts_of
from orchestrator.dataset import lint_console

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_findings_shared_by_images_are_printed_once(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("f02", "f03", "f04"):
        face(50 + int(name[1:])).convert("CMYK").save(good / "data" / f"{name}.jpg")
    report = check(good)
    assert len([text for text in texts_of(report) if "CMYK" in text]) == 3
    lint_console.show(report)
    lines = [line for line in capsys.readouterr().out.splitlines() if "CMYK" in line]
    assert lines == ["warning data/f02.jpg and 2 more  has CMYK colours, made for print; they become sRGB"]
