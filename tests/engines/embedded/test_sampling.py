"""Samplers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.engines.embedded.trainer import (
    model,
    prompts,
    sampling,
)

if TYPE_CHECKING:
    from pathlib import Path

LINE = "krnk, cat ears --n bad --w 32 --h 32 --s 3 --l 3"


@pytest.mark.parametrize("sampler", sampling.SAMPLERS)
def test_every_sampler_draws(base: Path, sampler: str) -> None:
    line = prompts.parse(LINE, prompts.PromptDefaults(sampler=sampler, seed=1))
    (image,) = sampling.draw_batch(model.load(base), [line], None, 1)
    assert image.size == (32, 32)
