"""Labels on images: widths, breaks, empty texts."""

from __future__ import annotations

import pytest

from orchestrator.release.text_layout import layout


@pytest.mark.parametrize(
    "text",
    ["from front, looking at viewer and waving with open mouth", "a_name_without_any_space_" * 3, "横から見た黒猫耳の顔" * 4],
)
def test_labels_keep_to_their_width(text: str) -> None:
    label = layout(text, 128, 16)
    assert 1 <= len(label.lines) <= 3
    assert label.width <= 128
    assert label.lines[0][:4] == text[:4]


def test_a_label_without_letters_takes_no_space() -> None:
    assert layout("", 128, 16).lines == ()


def test_a_label_is_not_broken_at_a_no_break_space() -> None:
    whole = layout("sv_ratio 16 (1.1\N{NO-BREAK SPACE}MiB)", 110, 15)
    assert whole.lines == ("sv_ratio 16", "(1.1 MiB)")  # drawn with a usual space: the font has no other
    assert layout("", 100, 15).lines == ()
