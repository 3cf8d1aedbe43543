"""Prompt lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.engines.embedded.trainer import (
    prompts,
)
from orchestrator.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("krnk --q 5", "--q is not an option of a prompt line here"),
        ("krnk --d x", "invalid literal"),
        ("krnk (cat:1.2)", "brackets and | are prompt syntax"),
        ("{a|b} krnk", "brackets and | are prompt syntax"),
        ("krnk --f ../a.png", "--f must be a plain file name"),
        ("krnk --w 4", "a side of 4 pixels is too small"),
    ],
)
def test_invalid_lines(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(f"fine\n{line}\n")
    with pytest.raises(RecipeError) as raised:
        prompts.read(file, prompts.PromptDefaults())
    assert f"{file}:2" in str(raised.value)
    assert message in str(raised.value)


def test_line_with_all_options() -> None:
    line = prompts.parse(
        r"a \(b\), c--d --n bad, --w 64 --h 48 --d 7 --s 9 --l 2.5 --ss euler --am 0.5,1 --f x.png", prompts.PromptDefaults()
    )
    assert (line.prompt, line.negative) == ("a (b), c--d", "bad,")
    assert (line.width, line.height, line.seed, line.steps, line.scale) == (64, 48, 7, 9, 2.5)
    assert (line.sampler, line.multipliers, line.file) == ("euler", (0.5, 1.0), "x.png")
